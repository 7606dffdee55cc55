"""Training steps on batches that stay on the device: the parts that several benchmarks share."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.harness.interleaved import Window
from fixres.config.recipe import ModelConfig
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision
from fixres.pipelines.spec import check_resolution

NUM_CLASSES = 1000
_STEPS_QUEUED = 8


class Load(NamedTuple):
    """A network and its batches."""

    name: str  # "small" or a timm name
    res: int  # side of the images in pixels
    batch_size: int  # images

    def model(self, small: ModelConfig) -> ModelConfig:
        """The network; `small` is the one of that name."""
        return small if self.name == "small" else ModelConfig(self.name)

    def __str__(self) -> str:
        return f"{self.name}:{self.res}:{self.batch_size}"


def loads(text: str) -> list[Load]:
    """A type for `--networks`: name:resolution:batch, ..."""
    try:
        parts = [part.split(":") for part in text.split(",")]
        found = [Load(name, check_resolution(int(side)), int(size)) for name, side, size in parts]
    except ValueError as error:
        message = f"{text!r} must be NAME:RESOLUTION:BATCH,..., such as resnet18:128:16: {error}"
        raise argparse.ArgumentTypeError(message) from None
    if any(load.batch_size < 2 for load in found):
        raise argparse.ArgumentTypeError(f"{text!r}: batches must have 2 images or more, for BatchNorm")
    return found


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


def timed_steps(step: Callable[[], int], device: torch.device, min_seconds: float) -> Window:
    """Calls `step`, which returns a number of images, until `min_seconds` have passed, at least twice.

    The host waits for the device every eight steps: waiting in every step would hide how well an engine works beside
    the device, and an unlimited queue of steps would measure the host.
    """
    start, num_images, num_steps = time.perf_counter(), 0, 0
    while num_steps < 2 or time.perf_counter() - start < min_seconds:
        num_images, num_steps = num_images + step(), num_steps + 1
        if num_steps % _STEPS_QUEUED == 0:
            synchronize(device)
    synchronize(device)
    return Window(num_images, time.perf_counter() - start)
