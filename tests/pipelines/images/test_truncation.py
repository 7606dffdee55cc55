"""JPEG files that end early but have an end marker are refused; complete ones of every kind are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.images.truncation import decode_complete
from fixres.pipelines.spec import BadSampleError

KINDS = [
    {},
    {"progressive": True},
    {"restart_marker_blocks": 4},
    {"subsampling": "4:4:4"},
    {"optimize": True, "quality": 30},
    {"exif": b"Exif\0\0" + b"\xff\xd9" * 40},
]


def jpeg(**options: object) -> bytes:
    generator = np.random.default_rng(0)
    small = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize((203, 150), Image.Resampling.BICUBIC).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("behind", [b"", b"\0" * 9, b"\xff\xd8\xff\xd9"])
def test_complete_files_are_decoded(options: dict, behind: bytes) -> None:
    data = jpeg(**options) + behind
    assert np.array_equal(decode_complete(data, "x.jpg"), decode_rgb(data, "x.jpg"))


@pytest.mark.parametrize("options", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_a_part_with_an_end_marker_is_refused(options: dict, share: float) -> None:
    data = jpeg(**options)
    start = data.rindex(b"\xff\xda") + 14  # the data of the last scan
    part = data[: start + int(share * (len(data) - start))].rstrip(b"\xff") + b"\xff\xd9"
    assert decode_rgb(part, "x.jpg").shape == (150, 203, 3)  # what Pillow accepts
    with pytest.raises(BadSampleError, match=r"^a/x.jpg: the JPEG is truncated"):
        decode_complete(part, "a/x.jpg")


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xe0", b"GIF89a"])
def test_what_is_no_image_is_named(data: bytes) -> None:
    with pytest.raises(BadSampleError, match=r"^x.jpg: "):
        decode_complete(data, "x.jpg")


def test_other_formats_are_decoded() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(buffer, "PNG")
    assert np.array_equal(decode_complete(buffer.getvalue(), "x.png").ravel(), np.arange(192))
