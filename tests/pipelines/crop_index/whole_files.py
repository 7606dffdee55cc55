"""JPEG files of several encoders, and crops of them."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import simplejpeg
from PIL import Image

from fixres.pipelines.crop_index import checkpoints as ck
from fixres.pipelines.crop_index.crops import decode_indexed
from fixres.pipelines.roc.decoder.turbojpeg import Decompressor
from fixres.pipelines.roc.layout import NUM_COUNTS, NUM_SAMPLE_COLUMNS
from tests.pipelines.roc.conftest import decode_whole


def save(image: np.ndarray, **options: object) -> bytes:
    """A JPEG file by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def simple(image: np.ndarray, quality: int, subsampling: str) -> bytes:
    """A JPEG file by simplejpeg, which knows 4:4:0 and 4:1:1, too."""
    space = "GRAY" if subsampling == "Gray" else "RGB"
    pixels = np.ascontiguousarray(image[..., :1] if space == "GRAY" else image)
    return simplejpeg.encode_jpeg(pixels, quality, space, subsampling)


def place_of(jpeg: bytes, sample: np.ndarray) -> np.ndarray:
    """The place of a file whose bytes are all the data."""
    header = sample[ck.HEADER_SIZE]
    return np.array([[0, header, 0, len(jpeg) - header]])


def crop(
    jpeg: bytes,
    found: ck.Checkpoints,
    box: tuple[float, float, float, float],
    resolution: int = 32,
    inside: bool = True,
    min_zoom: float = np.inf,
) -> tuple[int, np.ndarray, np.ndarray]:
    """Error code, uint8 (r, r, 3) and counts of one crop; it is not flipped."""
    out, codes = np.zeros((1, resolution, resolution, 3), np.uint8), np.zeros(1, np.int64)
    counts, boxes = np.zeros((1, NUM_COUNTS), np.int64), np.array([box], np.float64)
    data, places = np.frombuffer(jpeg, np.uint8), place_of(jpeg, found.sample)
    samples, flips = found.sample[None], np.zeros(1, bool)
    decode_indexed(
        data, places, samples, found.words, boxes, flips, np.zeros(1, bool), inside, min_zoom, out, codes, counts
    )
    return int(codes[0]), out[0], counts[0]


@cache
def _decompressor() -> Decompressor:
    return Decompressor()


def libjpegs_crop(
    jpeg: bytes,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    resolution: int = 32,
    inside: bool = True,
) -> np.ndarray:
    """The same by libjpeg-turbo's decoding of the whole image."""
    out, codes = np.zeros((1, resolution, resolution, 3), np.uint8), np.zeros(1, np.int64)
    counts, boxes = np.zeros((1, NUM_COUNTS), np.int64), np.array([box], np.float64)
    table, data = np.zeros((1, NUM_SAMPLE_COLUMNS), np.int64), np.frombuffer(jpeg, np.uint8)
    table[0] = 0, len(jpeg), 0, 0, *size
    decode_whole(
        data, table, boxes, np.zeros(1, bool), np.zeros(1, bool), inside, _decompressor().handle, out, codes, counts
    )
    assert codes[0] == 0
    return out[0]
