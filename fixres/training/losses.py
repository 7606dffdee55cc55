"""Training losses: cross entropy or binary cross entropy with hard or soft labels, distillation from a teacher.

A loss is called with logits (B, K), targets int64 (B,) or float (B, K), and uint8 NHWC images, all on the device, and
returns a scalar.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from fixres.config.recipe import DistillConfig, OptimConfig
from fixres.models.classes import Outputs
from fixres.models.factory import Normalize
from fixres.models.pretrained import open_network

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class CrossEntropy:
    """Mean cross entropy; smoothing, in [0, 1), applies to hard and soft labels alike (section 5.2)."""

    def __init__(self, label_smoothing: float) -> None:
        self._criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def __call__(self, logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:  # noqa: ARG002
        """See the module; the images are not used."""
        return self._criterion(logits, targets)


class BinaryCrossEntropy:
    """timm's: each class is a question of its own (arXiv 2110.00476, section 3); mean over batch and classes.

    Args:
        label_smoothing: in [0, 1), of hard and soft labels alike.
        target_thresh: targets above it become 1, the others 0; None keeps them.
    """

    def __init__(self, label_smoothing: float, target_thresh: float | None = None) -> None:
        from timm.loss import BinaryCrossEntropy as Criterion

        self._smoothing, self._criterion = label_smoothing, Criterion(label_smoothing, target_thresh)

    def __call__(self, logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:  # noqa: ARG002
        """See the module; the images are not used."""
        if targets.ndim == 2:  # timm's class smooths hard labels; its Mixup smooths mixed ones, ours does not
            targets = targets * (1 - self._smoothing) + self._smoothing / targets.shape[1]
        return self._criterion(logits.float(), targets)


def label_loss(config: OptimConfig) -> Loss:
    """The loss of a recipe for its labels."""
    if config.bce_loss:
        return BinaryCrossEntropy(config.label_smoothing, config.bce_target_thresh)
    return CrossEntropy(config.label_smoothing)


class OfChosen:
    """A loss of the outputs of the data's classes alone; the network's other outputs get no gradient."""

    def __init__(self, loss: Loss, outputs: Outputs) -> None:
        self._loss, self._outputs = loss, outputs

    def __call__(self, logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:
        """See the module; the logits are those of all outputs."""
        return self._loss(self._outputs.choose(logits), targets, images)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 times the cross entropy of softmax(teacher_logits / T) and softmax(logits / T), mean over the batch.

    It does not vanish if both agree: the constant T^2 times the teacher's entropy remains, which has no gradient.
    """
    soft_targets = (teacher_logits.float() / temperature).softmax(1)
    return temperature**2 * cross_entropy(logits.float() / temperature, soft_targets)


class Distilled:
    """The sum of a loss for the labels and the distillation loss; the teacher may have a cache."""

    def __init__(self, loss: Loss, teacher: Callable[[Tensor], Tensor], temperature: float) -> None:
        self._loss, self._teacher, self._temperature = loss, teacher, temperature

    def __call__(self, logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:
        """See the module; the teacher gets the augmented images that the network got."""
        distilled = distillation_loss(logits, self._teacher(images), self._temperature)
        return self._loss(logits, targets, images) + distilled


class Teacher:
    """A trained network that is put into eval mode and gets images resized to side `resolution` (pixels).

    Of its logits only `outputs` count, all if that is None.
    """

    def __init__(self, net: nn.Module, normalize: Normalize, resolution: int, outputs: Outputs | None = None) -> None:
        self.net, self.normalize, self.resolution = net.eval().requires_grad_(False), normalize, resolution
        self.outputs = outputs

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K) of the data's classes for uint8 (B, H, W, 3)."""
        values = self.normalize(images)
        if values.shape[-1] != self.resolution:
            size = (self.resolution, self.resolution)
            values = interpolate(values, size, mode="bilinear", antialias=True, align_corners=False)
        logits = self.net(values)
        return logits if self.outputs is None else self.outputs.choose(logits)


def open_teacher(config: DistillConfig, classes: tuple[str, ...], device: torch.device) -> Teacher:
    """The teacher of a recipe. Raises InputError if its weights do not exist, or if it does not know all classes."""
    opened = open_network(config.teacher, classes, arch=config.arch, model_kwargs=config.model_kwargs)
    resolution = config.resolution or opened.info.test_res
    outputs = None if opened.outputs is None else opened.outputs.to(device)
    return Teacher(opened.net.to(device), opened.normalize.to(device), resolution, outputs)
