"""Encodes images as RoC records: a baseline JPEG with a restart marker after every MCU, and its coarser levels."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile

from fixres.pipelines.images.codec import MAX_STORED_SIDE, fit_rgb
from fixres.pipelines.images.input_formats import ExifOption
from fixres.pipelines.images.jpeg_damage import DamagedOption
from fixres.pipelines.roc.halving import halve
from fixres.pipelines.roc.layout import DRI, MAX_LEVELS, SOF0, SOS, Level, pack
from fixres.pipelines.spec import InputError

SUBSAMPLINGS = ("4:2:0", "4:2:2", "4:4:4")
_lock = threading.Lock()


@dataclass(frozen=True)
class RocQuality:
    """How images are encoded."""

    quality: int = 90
    """JPEG quality of level 0, 1 to 100."""
    coarse_quality: int = 90
    """JPEG quality of the coarser levels, 1 to 100."""
    subsampling: str = "4:2:0"
    """Chroma subsampling of all levels."""
    min_short_side: int = 96
    """Coarser levels are made as long as their short side has at least this many pixels."""
    num_levels: int = 2
    """Maximum number of levels, the full one included. Each level halves the sides."""

    def __post_init__(self) -> None:
        for name in ("quality", "coarse_quality"):
            if not 1 <= getattr(self, name) <= 100:
                raise InputError(f"{name}={getattr(self, name)} must be 1 to 100")
        if self.subsampling not in SUBSAMPLINGS:
            raise InputError(f"subsampling={self.subsampling!r} must be one of {', '.join(SUBSAMPLINGS)}")
        if not 1 <= self.num_levels <= MAX_LEVELS:
            raise InputError(f"num_levels={self.num_levels} must be 1 to {MAX_LEVELS}")


def encode(image: Image.Image | np.ndarray, options: RocQuality | None = None) -> tuple[bytes, bytes]:
    """Encodes an image as the two fields of a RoC sample.

    Args:
        image: any Pillow image, or uint8 HWC RGB. It is stored as RGB.
        options: how to encode it; the defaults if None.

    Returns:
        The image field (a JPEG file) and the `roc` field.
    """
    options = options or RocQuality()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    if max(image.size) > MAX_STORED_SIDE:
        raise InputError(
            f"the image has {image.width} x {image.height} pixels, JPEG allows {MAX_STORED_SIDE} a side; shrink it"
        )
    image = image.convert("RGB")  # always a copy
    image.info = {}  # Pillow would write a comment into the file
    levels = [encode_level(image, 0, options.quality, options.subsampling)]
    for shift in range(1, options.num_levels):
        if (min(image.size) + 1) // 2 < options.min_short_side:
            break
        image = Image.fromarray(halve(np.asarray(image)))
        levels.append(encode_level(image, shift, options.coarse_quality, options.subsampling))
    return levels[0].jpeg, pack(levels)


def fit_roc(
    data: bytes,
    name: str,
    index: int,
    max_side: int,
    quality: int,
    *,
    exif: ExifOption = "ignore",
    damaged: DamagedOption = "refuse",
) -> tuple[bytes, int, int, bytes]:
    """An image file as a RoC sample whose long side is at most `max_side`; see `images.codec.fit_jpeg`.

    Returns:
        Image field, height, width, `roc` field.
    """
    image = fit_rgb(data, name, index, max_side, exif=exif, damaged=damaged)
    jpeg, record = encode(image, RocQuality(quality=quality, coarse_quality=quality))
    return jpeg, image.height, image.width, record


def encode_level(image: Image.Image, shift: int, quality: int, subsampling: str) -> Level:
    """Encodes one level: an RGB image without metadata that was halved `shift` times.

    `quality` is on libjpeg's scale, 1 to 100; `subsampling` is one of `SUBSAMPLINGS`.
    """
    # libjpeg writes an optimized scan in one call, and Pillow expects at most 1 byte a pixel: too little for noise.
    # 24 bytes are enough: no sample takes more than 8, and the last MCU may be filled up with 15 rows and columns.
    with _lock:
        needed = 24 * (image.width + 15) * (image.height + 15)
        ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, needed)
    buffer = io.BytesIO()
    # One MCU per segment: on 500 px photographs at quality 90 with optimized Huffman tables, this costs 3.0 % more
    # bytes than no restart markers; two MCUs save 1.1 % of that; the standard Huffman tables cost 4.1 % more.
    image.save(buffer, "JPEG", quality=quality, subsampling=subsampling, optimize=True, restart_marker_blocks=1)
    return index_jpeg(buffer.getvalue(), shift)


def index_jpeg(jpeg: bytes, shift: int = 0) -> Level:
    """Finds the segments of a baseline JPEG by its restart markers.

    Raises:
        ValueError: the file has no restart markers, or their interval does not divide its rows of MCUs.
    """
    frame, interval, header_size = _read_headers(jpeg)
    height, width = int.from_bytes(jpeg[frame : frame + 2], "big"), int.from_bytes(jpeg[frame + 2 : frame + 4], "big")
    num_components, sampling = jpeg[frame + 4], jpeg[frame + 6]
    mcu_height, mcu_width = (8 * (sampling & 15), 8 * (sampling >> 4)) if num_components == 3 else (8, 8)
    rows, columns = -(-height // mcu_height), -(-width // mcu_width)
    scan = np.frombuffer(jpeg, np.uint8)[header_size:]
    ends = np.flatnonzero((scan[:-1] == 0xFF) & (scan[1:] >= 0xD0) & (scan[1:] <= 0xD9)) + 2
    if not interval or columns % interval or len(ends) != rows * columns // interval or ends[-1] != len(scan):
        raise ValueError("a JPEG file without a restart marker after every segment of its rows")
    lengths = np.diff(ends, prepend=0).astype(np.uint16)
    return Level(jpeg, height, width, header_size, frame, shift, mcu_height, mcu_width, interval, lengths)


def _read_headers(jpeg: bytes) -> tuple[int, int, int]:
    """Position of the frame's height, restart interval (0 if none), size of all headers in bytes."""
    frame, interval, at = 0, 0, 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF:
        marker, end = jpeg[at + 1], at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker == SOF0:
            frame = at + 5
        elif marker == DRI:
            interval = int.from_bytes(jpeg[at + 4 : at + 6], "big")
        elif marker == SOS and frame:
            return frame, interval, end
        at = end
    raise ValueError("not a baseline JPEG file")
