"""Pictures of boxes and masks: the annotation on the left, the prediction on the right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms
from torchvision.utils import draw_bounding_boxes, draw_segmentation_masks

from fixres.reporting.plots import COLORS, contact_sheet
from fixres.transfer.detection_metrics import Boxes
from fixres.transfer.layouts.masks import IGNORED

_SHOWN_PIXELS = 400  # of the short side
_OPACITY = 0.6


def boxes_side_by_side(image: Tensor, annotated: Boxes, found: Boxes, classes: Sequence[str]) -> bytes:
    """A PNG of a uint8 (3, H, W) image with annotated boxes, dashed gray if they are ignored, and with found ones."""
    image = image.as_subclass(Tensor)
    drawn = []
    for one, has_scores in ((annotated, False), (found, True)):
        labels = [f"{classes[label]} {score:.2f}" if has_scores else classes[label]
                  for label, score in zip(one.labels, one.scores, strict=True)]  # fmt: skip
        colors = ["#999999" if ignored else COLORS[label % len(COLORS)]
                  for label, ignored in zip(one.labels, one.ignored, strict=True)]  # fmt: skip
        drawn.append(_with_boxes(image, one, labels, colors))
    return _sheet(drawn)


def _with_boxes(image: Tensor, one: Boxes, labels: list[str], colors: list[str]) -> Tensor:
    if not labels:
        return image
    return draw_bounding_boxes(image, torch.tensor(one.boxes), labels, colors, width=2)


def masks_side_by_side(image: Tensor, mask: Tensor, found: Tensor, classes: Sequence[str]) -> bytes:
    """A PNG of a uint8 (3, H, W) image below its mask and below the found one, both (H, W).

    Ignored pixels and a class called background are bare.
    """
    bare = {IGNORED, *(label for label, name in enumerate(classes) if name == "background")}
    image, drawn = image.as_subclass(Tensor), []
    for labels in (mask.as_subclass(Tensor), found):
        present = [label for label in labels.unique().tolist() if label not in bare]
        masks = torch.stack([labels == label for label in present]) if present else None
        colors = [COLORS[label % len(COLORS)] for label in present]
        drawn.append(image if masks is None else draw_segmentation_masks(image, masks, _OPACITY, colors))
    return _sheet(drawn)


def _sheet(images: list[Tensor]) -> bytes:
    shown = [one if min(one.shape[-2:]) <= _SHOWN_PIXELS else transforms.resize(one, [_SHOWN_PIXELS], antialias=True)
             for one in images]  # fmt: skip
    return contact_sheet(torch.stack(shown).permute(0, 2, 3, 1).numpy())
