"""Faster R-CNN with a feature pyramid on a trained backbone: torchvision's, with its losses and its own resizing."""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from fixres.config.transfer import DetectRecipe
from fixres.distributed.process_group import all_gather, num_processes
from fixres.models.precision import Precision
from fixres.observability.console import bar
from fixres.pipelines.spec import InputError
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.trainer import Trainer
from fixres.transfer.detection_metrics import Boxes, DetectionResult, score_boxes
from fixres.transfer.feature_pyramid import Backbone, chosen_backbone
from fixres.transfer.layouts.annotations import BoxedData, BoxedImage
from fixres.transfer.pictures import boxes_side_by_side
from fixres.transfer.sample_loader import SampleLoader, listed
from fixres.transfer.samples import SampleDataset, box_transform, read_boxed

_ROI_CELLS = 7
_RATIOS = (0.5, 1.0, 2.0)
_SHOWN_SCORE = 0.5


class _Pyramid(nn.Module):
    """Backbone and feature pyramid, the only part in 16 bits: torchvision computes boxes in the type of its layers."""

    def __init__(self, backbone: Backbone, channels: int, precision: Precision) -> None:
        super().__init__()
        self.backbone, self.out_channels, self._precision = backbone, channels, precision
        self.fpn = FeaturePyramidNetwork(list(backbone.channels), channels, extra_blocks=LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        with self._precision.autocast():
            features = self.backbone(images.contiguous(memory_format=torch.channels_last))
            levels = self.fpn(OrderedDict((str(k), feature) for k, feature in enumerate(features)))
        return OrderedDict((name, level.float()) for name, level in levels.items())


def create_detector(recipe: DetectRecipe, backbone: Backbone, num_classes: int, precision: Precision) -> FasterRCNN:
    """The network for images in [0, 1] of any size; label 0 is the background, the classes follow.

    Raises:
        InputError: not one anchor size for each level.
    """
    num_levels = len(backbone.channels)
    if len(recipe.anchor_sizes) != num_levels + 1:
        raise InputError(
            f"anchor_sizes={recipe.anchor_sizes}: the pyramid has {num_levels + 1} levels; give a size for each"
        )
    channels, features = recipe.fpn_channels, recipe.head_features
    return FasterRCNN(
        _Pyramid(backbone, channels, precision),
        min_size=tuple(recipe.min_sizes),
        max_size=recipe.max_size,
        image_mean=list(backbone.info.mean),
        image_std=list(backbone.info.std),
        rpn_anchor_generator=AnchorGenerator(
            tuple((size,) for size in recipe.anchor_sizes), (_RATIOS,) * len(recipe.anchor_sizes)
        ),
        box_roi_pool=MultiScaleRoIAlign([str(k) for k in range(num_levels)], _ROI_CELLS, sampling_ratio=2),
        box_head=TwoMLPHead(channels * _ROI_CELLS**2, features),
        box_predictor=FastRCNNPredictor(features, num_classes + 1),
        box_batch_size_per_image=recipe.box_batch_size_per_image,
    )


class _DetectionTrainer(Trainer):
    """torchvision's detector computes its losses itself, from images and boxes."""

    def step(self, images: Any, labels: Any, number: int = 0) -> Tensor:  # noqa: ARG002 (nothing is drawn from it)
        with self.stepper.context(self._parallel):
            losses = self._parallel([image.float() / 255 for image in images], list(labels))
            loss = torch.stack(list(losses.values())).sum()
            self.stepper.step(loss)
        return loss.detach()


class DetectionTask:
    """See `fixres.transfer.run.Task`."""

    def __init__(self, recipe: DetectRecipe, data: BoxedData, precision: Precision) -> None:
        torch.manual_seed(recipe.seed)
        self.backbone = chosen_backbone(recipe.backbone)
        self.backbone.freeze(recipe.backbone.num_frozen_stages)
        self.classes, self._data, self._device = data.classes, data, precision.device
        self.net = create_detector(recipe, self.backbone, len(data.classes), precision).to(precision.device)
        stepper = Stepper(create_optimizer(self.net, recipe.optim), precision, recipe.optim.accumulate or 1)
        self.trainer = _DetectionTrainer(
            self.net, self.backbone.normalize, stepper, CrossEntropy(0.0), seed=recipe.seed
        )
        train = SampleDataset(data.train, read_boxed, box_transform(recipe.hflip), recipe.seed)
        test = SampleDataset(data.test, read_boxed, None, recipe.seed)
        options = {"seed": recipe.seed, "resolution": recipe.min_sizes[-1], "num_workers": recipe.data.num_workers}
        self.train = SampleLoader(train, recipe.optim.micro_batch_size, shuffle=True, collate=listed, **options)
        self.test = SampleLoader(test, num_processes(), shuffle=False, collate=listed, **options)

    def check(self, loader: Any) -> None:
        """See `fixres.transfer.run.Task`."""
        with bar(len(self._data.test), "reading the test images") as shown:
            for batch in loader:
                shown.update(len(batch.images) * num_processes())

    def evaluate(self, loader: Any, title: str) -> DetectionResult:
        """Average precisions on the test images."""
        found = []
        with bar(len(self._data.test), title) as shown:
            for batch in loader:
                boxes = self.find(batch.images)
                found += zip(batch.indices.tolist(), boxes, strict=True)
                shown.update(len(boxes) * num_processes())
        by_index = dict(chain.from_iterable(all_gather(found)))
        truth = [annotated(one) for one in self._data.test]
        return score_boxes([by_index[k] for k in range(len(truth))], truth, self.classes)

    @torch.inference_mode()
    def find(self, images: list[Tensor]) -> list[Boxes]:
        """The boxes that the network finds in uint8 (3, H, W) images, in their pixels."""
        self.net.eval()
        outputs = self.net([image.to(self._device).float() / 255 for image in images])
        return [
            Boxes(one["boxes"].cpu().numpy(), one["labels"].cpu().numpy() - 1, one["scores"].cpu().numpy(),
                  torch.zeros(len(one["labels"]), dtype=torch.bool).numpy())
            for one in outputs
        ]  # fmt: skip

    def pictures(self, num: int) -> list[bytes]:
        """The first test images with annotated boxes, and with those found with a score of a half or more."""
        pictures = []
        for one in self._data.test[:num]:
            image, _ = read_boxed(one)
            (found,) = self.find([image])
            sure = found.scores >= _SHOWN_SCORE
            shown = Boxes(found.boxes[sure], found.labels[sure], found.scores[sure], found.ignored[sure])
            pictures.append(boxes_side_by_side(image, annotated(one), shown, self.classes))
        return pictures


def annotated(one: BoxedImage) -> Boxes:
    """The boxes of an annotation, for the metrics."""
    return Boxes(one.boxes, one.labels, torch.ones(len(one.labels)).numpy(), one.ignored)
