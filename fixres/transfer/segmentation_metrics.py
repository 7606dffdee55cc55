"""Pixel accuracy and mean intersection over union from a confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fixres.transfer.layouts.masks import IGNORED


@dataclass(frozen=True)
class SegmentationResult:
    """Fractions.

    Attributes:
        pixel_accuracy: share of the labeled pixels whose class is right.
        mean_iou: mean over classes of intersection over union; classes without pixels, labeled or predicted, are left
            out.
        by_class: class name to its IoU; None for a class that is left out.
        num_images: test images.
        num_pixels: labeled pixels.
    """

    pixel_accuracy: float
    mean_iou: float
    by_class: dict[str, float | None]
    num_images: int
    num_pixels: int


def confusion(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """int64 (classes, classes), row: label, column: prediction; pixels labeled 255 do not count.

    Args:
        predicted: int64 in [0, num_classes), any shape.
        labels: integers of the same shape in [0, num_classes), or 255.
        num_classes: number of classes.
    """
    counts = labels != IGNORED
    pairs = labels[counts].long() * num_classes + predicted[counts]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def score_masks(matrix: Tensor, classes: Sequence[str], num_images: int) -> SegmentationResult:
    """The metrics of a confusion matrix over all test images."""
    matrix = matrix.double()
    right, total = matrix.diagonal(), matrix.sum()
    union = matrix.sum(0) + matrix.sum(1) - right
    by_class = [float(one / other) if other > 0 else None for one, other in zip(right, union, strict=True)]
    known = [one for one in by_class if one is not None]
    return SegmentationResult(
        pixel_accuracy=float(right.sum() / total) if total else 0.0,
        mean_iou=sum(known) / len(known) if known else 0.0,
        by_class=dict(zip(classes, by_class, strict=True)),
        num_images=num_images,
        num_pixels=int(total),
    )
