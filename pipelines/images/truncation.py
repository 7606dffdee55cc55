"""Finds JPEG files whose pixels are missing although they have an end marker, as some downloads and repairs leave them.

For pixels without data libjpeg only warns, and Pillow does not pass the warning on: it delivers gray. The pixels of a
complete file do not depend on what stands between the last of them and the end marker. So the file is decoded again
with other bytes there; if they become pixels, some were missing.
"""

from __future__ import annotations

import random

import numpy as np

from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.spec import BadSampleError

_START, _END, _SCAN = b"\xff\xd8", 0xD9, 0xDA
_RESTARTS = range(0xD0, 0xD8)
_FILLER = bytes(random.Random(0).randrange(255) for _ in range(64))  # without 0xFF, which begins a marker


def decode_complete(data: bytes, name: str) -> np.ndarray:
    """As `decode_rgb`, but refuses JPEG files in which the data of pixels is missing.

    Raises:
        BadSampleError: as `decode_rgb`, and for missing data.
    """
    pixels = decode_rgb(data, name)
    end = _end_marker(data) if data[:2] == _START else None
    if end is not None:
        filled = decode_rgb(data[:end] + _FILLER + data[end:], name)
        if not np.array_equal(pixels, filled):
            raise BadSampleError(f"{name}: the JPEG is truncated, a part of its pixels has no data; replace it")
    return pixels


def _end_marker(data: bytes) -> int | None:
    """Where the marker stands that ends the first image; None if there is none."""
    position = len(_START)
    while (position := data.find(b"\xff", position)) >= 0 and position + 2 <= len(data):
        marker = data[position + 1]
        if marker == _END:
            return position
        if marker in (0x00, 0xFF, 0x01) or marker in _RESTARTS:  # inside the scan's data
            position += 1 if marker == 0xFF else 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return None
