"""Files that Pillow does not read are refused with the true reason."""

from __future__ import annotations

import pytest

from tests.pipelines.images.odd import CODED, bad, encoded, png
from tests.pipelines.images.odd_jpegs import PLAIN, adobe, with_segment

DATA = PLAIN["4:2:0"]
FRAME = DATA.index(b"\xff\xc0")


def frame(marker: int = 0xC0, precision: int = 8, height: int = 40, width: int = 56) -> bytes:
    size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return DATA[: FRAME + 1] + bytes([marker, 0, 17, precision]) + size + DATA[FRAME + 9 :]


BROKEN_PNG = bytearray(png(8, 8, 8, 0, bytes(72)))
BROKEN_PNG[30] ^= 1  # in the checksum of its header
REASONS = {
    "a JPEG of 12 bits per sample, only 8 are supported": frame(precision=12),
    "it is a JPEG-LS file": frame(0xF7),
    "a JPEG whose coding is not supported: lossless": frame(0xC3),
    "a JPEG whose coding is not supported: hierarchical": frame(0xC5),
    "a JPEG whose coding is not supported: arithmetic-coded progressive": frame(0xCA),
    "the header of the JPEG says 56 x 0 pixels": frame(height=0),
    "the header of the JPEG says 0 x 40 pixels": frame(width=0),
    "the APP14 segment of the JPEG is too short": with_segment(DATA, 0xEE, adobe(1)[:5]),
    "the header of the JPEG is incomplete": DATA[:FRAME] + b"\xff\xd9",
    "Quantization table 0x00 was not defined": DATA.replace(b"\xff\xdb", b"\xff\xee"),
    "a damaged JPEG file: cannot handle 2-layer images": DATA[: FRAME + 9] + b"\2" + DATA[FRAME + 10 :],
    "a damaged PNG file: broken PNG file (bad header checksum in b'IHDR')": bytes(BROKEN_PNG),
    "it is none of JPEG, PNG, WEBP, GIF, BMP, PPM, TIFF, JPEG2000, AVIF": b"\0" * 99,
    "it is HEIC, a format of phones, which is not read; convert it to JPEG": b"\0\0\0\x18ftypheic" + bytes(99),
    "a part of the GIF header is too short": encoded(CODED, "GIF")[:9],
}


@pytest.mark.parametrize("reason", REASONS)
def test_the_reason_is_true(reason: str) -> None:
    assert bad(REASONS[reason], "a/x.jpg") == f"a/x.jpg: cannot be decoded ({reason}); replace or remove it"
