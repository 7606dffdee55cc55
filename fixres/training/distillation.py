"""Knowledge distillation: a trained network tells the learning one what it sees (arXiv 1812.01187, section 5.3)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from fixres.config.recipe import DistillConfig
from fixres.models.factory import Normalize
from fixres.models.pretrained import open_network
from fixres.training.loss import Loss


def distillation(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 times the cross entropy of softmax(teacher_logits / T) and softmax(logits / T), mean over the batch.

    It is large even where both agree: T^2 times the entropy of the teacher's word, which no gradient feels.

    Args:
        logits: float (B, K) of the network.
        teacher_logits: float (B, K).
        temperature: T.
    """
    told = (teacher_logits.float() / temperature).softmax(1)
    return temperature**2 * cross_entropy(logits.float() / temperature, told)


class Teacher:
    """A trained network that is asked, never taught.

    Args:
        net: on the device; it is put into eval mode.
        normalize: from uint8 NHWC batches to its input.
        resolution: side in pixels of the images that it is shown.
    """

    def __init__(self, net: nn.Module, normalize: Normalize, resolution: int) -> None:
        self.net, self.normalize, self.resolution = net.eval().requires_grad_(False), normalize, resolution

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits (B, K) for uint8 (B, H, W, 3)."""
        values = self.normalize(images)
        if values.shape[-1] != self.resolution:
            size = (self.resolution, self.resolution)
            values = interpolate(values, size, mode="bilinear", antialias=True, align_corners=False)
        return self.net(values)


class Distilled:
    """A loss and, added to it, the distillation loss.

    Args:
        loss: for the labels.
        teacher: logits for the same images, a `Teacher` or one with a cache.
        temperature: T.
    """

    def __init__(self, loss: Loss, teacher: Callable[[Tensor], Tensor], temperature: float) -> None:
        self._loss, self._teacher, self._temperature = loss, teacher, temperature

    def __call__(self, logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:
        """As `Loss`; the teacher sees what the network saw, mixed and recolored."""
        told = distillation(logits, self._teacher(images), self._temperature)
        return self._loss(logits, targets, images) + told


def open_teacher(config: DistillConfig, classes: tuple[str, ...], device: torch.device) -> Teacher:
    """The teacher of a recipe, for data with these classes.

    Raises:
        InputError: no such weights, or weights for other classes.
    """
    opened = open_network(config.teacher, classes, arch=config.arch, model_kwargs=config.model_kwargs)
    resolution = config.resolution or opened.info.test_res
    return Teacher(opened.net.to(device), opened.normalize.to(device), resolution)
