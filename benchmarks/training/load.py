"""Networks with their batches, as options name them."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from fixres.config.recipe import ModelConfig
from fixres.pipelines.spec import check_resolution


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
