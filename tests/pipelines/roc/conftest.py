"""Images like photographs, and their records."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

from fixres.pipelines.roc.decoder import turbojpeg
from fixres.pipelines.roc.decoder.whole_image import decode_whole_images
from fixres.pipelines.roc.encoder import RocQuality, encode
from fixres.pipelines.spec import InputError


def _has_turbojpeg() -> bool:
    try:
        return bool(turbojpeg.load())
    except InputError:
        return False


needs_turbojpeg = pytest.mark.skipif(not _has_turbojpeg(), reason="libturbojpeg is not installed")


@cache
def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3): blurred noise of several scales, with a spectrum like a photograph."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cell in (2, 6, 20, 64):
        size = (width // cell + 2, height // cell + 2)
        noise = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
        scaled = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(scaled, float) - 128) * cell**0.5
    return np.clip(128 + total / 8, 0, 255).astype(np.uint8)


@cache
def record(height: int, width: int, **options: object) -> tuple[bytes, bytes]:
    """Image field and `roc` field of a photo."""
    return encode(photo(height, width), RocQuality(**options))


def decode_whole(data, table, boxes, flips, bicubic, inside, handle, out, codes, counts) -> None:
    """`decode_whole_images` with one view; arguments are those of `decode_samples`, with a handle for `min_zoom`."""
    places = out.reshape(-1), np.zeros(1, np.int64), np.array(out.shape[1:2])
    one = boxes[:, None], flips[:, None], bicubic[:, None]
    decode_whole_images(data, table, *one, inside, handle, *places, codes, counts)


def pillow(jpeg: bytes) -> np.ndarray:
    """uint8 HWC as Pillow decodes it."""
    return np.asarray(Image.open(io.BytesIO(jpeg)))
