"""Speed of training steps on batches that stay on the device, the upper bound for every input engine.

A step does what the trainer does: normalize, forward, loss, backward, update. benchmarks.training measures with these
parts, `fixres.projection` measures briefly.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fixres.config.recipe import ModelConfig, OptimConfig
from fixres.models.factory import Normalize, create_model
from fixres.models.network_size import without_values
from fixres.models.precision import Precision, choose_precision
from fixres.models.probe import forward_flops
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.trainer import Trainer

NUM_CLASSES = 1000
_STEPS_QUEUED = 8


class Steps:
    """Training steps of one network.

    Args:
        name: a timm name.
        batch_size: images of each batch that `timed` makes.
        precision: device and number format.
        compile: "auto", "yes" or "no", as in a recipe.
    """

    def __init__(self, name: str, batch_size: int, precision: Precision, compile: str) -> None:
        self.name, self._batch_size, self._device = name, batch_size, precision.device
        self._net, self._normalize = training_network(ModelConfig(name), precision)
        stepper = Stepper(create_optimizer(self._net, OptimConfig()), precision)
        self._trainer = Trainer(self._net, self._normalize, stepper, CrossEntropy(0.1), compile)

    def timed(self, resolution: int, min_seconds: float) -> tuple[int, float]:
        """Steps on a batch that stays on the device: images, seconds."""
        batch = resident_batch(self._batch_size, resolution, self._device)
        return self.timed_fed(lambda: batch, min_seconds)

    def timed_fed(self, feed: Callable[[], Any], min_seconds: float) -> tuple[int, float]:
        """Steps on batches of an input engine: `feed` gives images (uint8 NHWC) and labels on the device."""

        def step() -> int:
            images, labels = feed()[:2]
            self._trainer.step(images, labels)
            return len(labels)

        step()  # compiles and chooses algorithms
        synchronize(self._device)
        return timed_steps(step, self._device, min_seconds)

    def forward_flops(self, resolution: int) -> int:
        """FLOPs of the forward pass of one image."""
        return forward_flops(self._net, self._normalize, resolution)


def measure_steps(model: str, resolutions: Sequence[int], device: torch.device) -> dict[int, float]:
    """Images/s of a timm network by resolution, the median of three short windows: too imprecise to quote."""
    batch_size, seconds = (128, 1.0) if device.type == "cuda" else (4, 0.5)
    outline = without_values(lambda: create_model(ModelConfig(model), NUM_CLASSES))
    steps = Steps(model, batch_size, choose_precision("auto", device, outline), "auto")
    rounds = [{side: steps.timed(side, seconds) for side in resolutions} for _ in range(3)]
    return {side: statistics.median(one[side][0] / one[side][1] for one in rounds) for side in resolutions}


def training_network(model: ModelConfig, precision: Precision) -> tuple[nn.Module, Normalize]:
    """A new network in training mode and its normalization, on the device."""
    return create_model(model, NUM_CLASSES).to(precision.device).train(), Normalize().to(precision.device)


def resident_batch(batch_size: int, resolution: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images, uint8 (B, r, r, 3), and labels, int64 (B,), on the device."""
    shape = (batch_size, resolution, resolution, 3)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    return images, torch.randint(0, NUM_CLASSES, (batch_size,), device=device)


def synchronize(device: torch.device) -> None:
    """Returns when the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_steps(step: Callable[[], int], device: torch.device, min_seconds: float) -> tuple[int, float]:
    """Calls `step`, which returns a number of images, until `min_seconds` have passed, at least twice: images, seconds.

    The host waits for the device every eight steps: waiting in every step would hide how well an engine works beside
    the device, and an unlimited queue of steps would measure the host.
    """
    start, num_images, num_steps = time.perf_counter(), 0, 0
    while num_steps < 2 or time.perf_counter() - start < min_seconds:
        num_images, num_steps = num_images + step(), num_steps + 1
        if num_steps % _STEPS_QUEUED == 0:
            synchronize(device)
    synchronize(device)
    return num_images, time.perf_counter() - start
