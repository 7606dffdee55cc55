"""Which part of an image a crop shows: training, evaluation and shifted crops, and their settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from fixres.pipelines.errors import InputError
from fixres.pipelines.value_types import check_fields


class Box(NamedTuple):
    """A crop rectangle in pixels of the stored image: rows [y, y + h), columns [x, x + w)."""

    y: int
    x: int
    h: int
    w: int


Interpolation = Literal["bilinear", "bicubic"]
"""Filters of resizing, always antialiased, on the grid that Pillow, torchvision and timm share."""
TrainInterpolation = Literal["bilinear", "bicubic", "random"]
"""In training also one of the two at random for each image, as timm has it."""


@dataclass(frozen=True)
class TrainCrop:
    """RandomResizedCrop with torchvision's semantics, then a horizontal flip."""

    scale: tuple[float, float] = (0.08, 1.0)
    """Range of the crop's area as a fraction of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of the crop's aspect ratio, width over height; sampled log-uniformly."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    interpolation: TrainInterpolation = "bilinear"
    """Filter of the resize, antialiased; "random" chooses one of the two for each image, as timm does in training."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"scale={self.scale} must satisfy 0 < low <= high <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise InputError(f"ratio={self.ratio} must satisfy 0 < low <= high")
        check_fraction("hflip", self.hflip)


@dataclass(frozen=True)
class EvalCrop:
    """timm's center crop: the short side resized to floor(resolution / crop_pct), then the center square."""

    crop_pct: float = 0.875
    """Side of the center crop over the resized short side, in (0, 1]."""
    hflip: float = 0.0
    """Probability of a horizontal flip; above 0 in fine-tuning only (FixRes, section 4)."""
    interpolation: Interpolation = "bilinear"
    """Filter of the resize, antialiased."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.crop_pct <= 1:
            raise InputError(f"crop_pct={self.crop_pct} must be in (0, 1]; 0.875 is usual for ImageNet")
        check_fraction("hflip", self.hflip)


@dataclass(frozen=True)
class ShiftCrop:
    """As `EvalCrop`, but with a random horizontal shift and flip (FixRes's fine-tuning "test DA2").

    The square stays inside the resized image, at whole pixels of it. Its vertical position is the center.
    """

    crop_pct: float = 0.875
    """Side of the crop over the resized short side, in (0, 1]."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    interpolation: Interpolation = "bilinear"
    """Filter of the resize, antialiased."""

    def __post_init__(self) -> None:
        EvalCrop(self.crop_pct, self.hflip, self.interpolation)  # makes the same checks


Crop = TrainCrop | EvalCrop | ShiftCrop


@dataclass(frozen=True)
class ViewGroup:
    """Crops of each image that have one size, as in multi-crop (SwAV, arXiv 2006.09882, section 3.2)."""

    num: int
    """Crops of each image."""
    resolution: int | None = None
    """Side in pixels; None for the loader's resolution, which may change between epochs."""
    scale: tuple[float, float] | None = None
    """`TrainCrop.scale` of these crops; None for the loader's."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.num < 1:
            raise InputError(f"views={self.num} must be at least 1")
        if self.scale is not None:
            TrainCrop(self.scale)  # makes the same checks


def check_fraction(name: str, value: float) -> None:
    """Raises InputError unless `value` is in [0, 1]."""
    if not 0 <= value <= 1:
        raise InputError(f"{name}={value} must be in [0, 1]")
