"""Images that tell their own geometry: red rises with x, green with y, blue carries a number.

An output cut from one of them says which box it shows, whether it is mirrored, whether channels are swapped, and
which image it came from. Smooth ramps survive JPEG within a few gray levels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

NUM_CODES = 8  # blue levels 32 apart, so that JPEG cannot confuse two


def coded_image(height: int, width: int, code: int = 0) -> np.ndarray:
    """uint8 (height, width, 3): red = 255 x / (width - 1), green = 255 y / (height - 1), blue = 16 + 32 code."""
    image = np.empty((height, width, 3), np.uint8)
    image[..., 0] = np.rint(np.linspace(0, 255, width))[None, :]
    image[..., 1] = np.rint(np.linspace(0, 255, height))[:, None]
    image[..., 2] = 16 + 32 * (code % NUM_CODES)
    return image


def jpeg(image: np.ndarray, quality: int = 95, **options: object) -> bytes:
    """`image` (uint8 HWC) as a JPEG file, chroma not subsampled."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=0, **options)
    return buffer.getvalue()


def write_coded_folder(root: Path, sizes: list[tuple[int, int]], num_classes: int = 2) -> Path:
    """An ImageFolder of coded images: sample i has size sizes[i], code i and class i modulo num_classes.

    File names sort so that ImageFolder's index order is class by class, then by i.
    """
    for i, (height, width) in enumerate(sizes):
        folder = root / f"class_{i % num_classes:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:05d}.jpg").write_bytes(jpeg(coded_image(height, width, i)))
    return root


def read_box(crop: np.ndarray, height: int, width: int) -> tuple[float, float, float, float, bool]:
    """Recovers from a crop of a coded image of (height, width) what it shows: y, x, h, w in pixels, and flip.

    A straight line is fitted to the ramps, so clamping at the border and JPEG noise hardly matter.

    Args:
        crop: uint8 (r, r, 3).
        height: rows of the stored image.
        width: columns of the stored image.
    """
    r = crop.shape[0]
    columns = crop[..., 0].astype(float).mean(0) * (width - 1) / 255
    rows = crop[..., 1].astype(float).mean(1) * (height - 1) / 255
    inner = slice(r // 8, r - r // 8)
    centres = np.arange(r) + 0.5
    slope_x, start_x = np.polyfit(centres[inner], columns[inner] + 0.5, 1)
    slope_y, start_y = np.polyfit(centres[inner], rows[inner] + 0.5, 1)
    flip = slope_x < 0
    x = start_x + slope_x * r if flip else start_x
    return start_y, x, slope_y * r, abs(slope_x) * r, bool(flip)
