"""Networks with their batches, as options name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from fixres.config.recipe import ModelConfig
from fixres.pipelines.spec import InputError, check_resolution


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


def loads(networks: Sequence[str]) -> list[Load]:
    """The loads that `--networks` names, each as name:resolution:batch.

    Raises:
        InputError: one is of another form, or its batch is too small.
    """
    found = []
    for text in networks:
        try:
            name, side, size = text.split(":")
            found.append(Load(name, check_resolution(int(side)), int(size)))
        except ValueError as error:
            raise InputError(
                f"networks: {text!r} must be NAME:RESOLUTION:BATCH, such as resnet18:128:16: {error}"
            ) from None
        if found[-1].batch_size < 2:
            raise InputError(f"networks: {text!r}: batches must have 2 images or more, for BatchNorm")
    return found
