"""Codes an image as a RoC record: baseline JPEG with restart markers, and its coarser levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipelines.images.codec import fit_rgb
from pipelines.images.input_formats import ExifOption
from pipelines.roc.encoder.halve import halve
from pipelines.roc.encoder.jpeg_file import MCU, code_level
from pipelines.roc.layout import MAX_LEVELS, MAX_SIDE, pack
from pipelines.spec import InputError


@dataclass(frozen=True)
class RocQuality:
    """How images are coded."""

    quality: int = 90
    """JPEG quality of level 0, 1 to 100."""
    coarse_quality: int = 90
    """JPEG quality of the coarser levels."""
    subsampling: str = "4:2:0"
    """Chroma subsampling of all levels."""
    min_short_side: int = 96
    """A coarser level is made while its short side is at least this, in pixels."""
    num_levels: int = 2
    """Levels made at most, the full one included; each halves the sides."""

    def __post_init__(self) -> None:
        for name in ("quality", "coarse_quality"):
            if not 1 <= getattr(self, name) <= 100:
                raise InputError(f"{name}={getattr(self, name)} must be 1 to 100")
        if self.subsampling not in MCU:
            raise InputError(f"subsampling={self.subsampling!r} must be one of {', '.join(MCU)}")
        if not 1 <= self.num_levels <= MAX_LEVELS:
            raise InputError(f"num_levels={self.num_levels} must be 1 to {MAX_LEVELS}")


def encode(image: Image.Image | np.ndarray, options: RocQuality | None = None) -> tuple[bytes, bytes]:
    """An image as the two fields of a RoC sample.

    Args:
        image: any Pillow image, or uint8 HWC RGB; it is coded as RGB.
        options: how to code it; the defaults if None.

    Returns:
        The image field (a JPEG file) and the `roc` field.
    """
    options = options or RocQuality()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    image = image if image.mode == "RGB" else image.convert("RGB")
    if max(image.size) > MAX_SIDE:
        raise InputError(
            f"the image has {image.width} x {image.height} pixels, JPEG holds {MAX_SIDE} a side; shrink it"
        )
    pixels = np.asarray(image)
    levels = [code_level(pixels, 0, options.quality, options.subsampling)]
    for shift in range(1, options.num_levels):
        if -(-min(image.size) >> shift) < options.min_short_side:
            break
        pixels = halve(pixels)
        pixels.setflags(write=False)  # as Pillow's, so that one compiled version of each kernel does
        levels.append(code_level(pixels, shift, options.coarse_quality, options.subsampling))
    return levels[0].jpeg, pack(levels)


def fit_roc(
    data: bytes, name: str, index: int, max_side: int, quality: int, *, exif: ExifOption = "ignore"
) -> tuple[bytes, int, int, bytes]:
    """An image file as a RoC sample whose long side is at most `max_side`; see `pipelines.images.codec.fit_jpeg`.

    Returns:
        Image field, height, width, `roc` field.
    """
    image = fit_rgb(data, name, index, max_side, exif=exif)
    jpeg, record = encode(image, RocQuality(quality=quality, coarse_quality=quality))
    return jpeg, image.height, image.width, record
