"""Shared by the tests of odd image files: handmade files, and all ways to read them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets.folder import default_loader

from fixres.pipelines.images.codec import decode_rgb, fit_jpeg
from fixres.pipelines.roc.encoder import fit_roc
from fixres.pipelines.spec import BadSampleError
from tests.coded import coded_image

HEIGHT, WIDTH = 40, 56
CODED = Image.fromarray(coded_image(HEIGHT, WIDTH, 3))
ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, color: int, rows: bytes) -> bytes:
    """A handmade PNG file that Pillow cannot write. `rows` are the image's, each with its filter byte."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def tiff(values: list[int], bits: int, packed: bytes, **tags: int) -> bytes:
    """A gray TIFF file of one row by hand."""
    entries = {256: len(values), 257: 1, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    entries |= {int(key[1:]): value for key, value in tags.items()}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    table = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + packed


def by_torchvision(data: bytes, folder: Path) -> np.ndarray:
    (folder / "image").write_bytes(data)
    return np.asarray(default_loader(str(folder / "image")))


def bad(data: bytes, name: str = "x") -> str:
    """The error message, which is the same for all ways to read the data."""
    messages = set()
    for call in (decode_rgb, lambda *a: fit_jpeg(*a, 500, 90), lambda *a: fit_roc(*a, 500, 90)):
        with pytest.raises(BadSampleError) as caught:
            call(data, name, 7)
        assert caught.value.index == 7
        messages.add(str(caught.value))
    assert len(messages) == 1
    return messages.pop()


def see_through() -> dict[str, bytes]:
    alpha = Image.fromarray(coded_image(HEIGHT, WIDTH)[..., 0])
    rgba, la = CODED.convert("RGBA"), CODED.convert("L").convert("LA")
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    palette = CODED.quantize(16)
    return {
        "rgba": encoded(rgba, "PNG"),
        "la": encoded(la, "PNG"),
        "webp": encoded(rgba, "WEBP", lossless=True, exact=True),
        "palette, one color": encoded(palette, "PNG", transparency=3),
        "palette, alpha for each": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "gray, one level": encoded(CODED.convert("L"), "PNG", transparency=7),
        "gif": encoded(palette, "GIF", transparency=3),
    }


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags.tobytes()
