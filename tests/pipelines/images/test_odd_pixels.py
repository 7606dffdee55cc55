"""Odd colors, depths and orientations; the expected pixels are known, or torchvision's."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from fixres.pipelines.images.codec import check_fit, decode_rgb, fit_jpeg, fit_rgb, image_size
from fixres.pipelines.roc.encoder import fit_roc
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg
from tests.pipelines.images.odd import (
    CODED,
    HEIGHT,
    WIDTH,
    bad,
    by_torchvision,
    encoded,
    exif,
    png,
    see_through,
    tiff,
)

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # pytest undoes the filter that the module sets


def inks(*cmyk: int) -> np.ndarray:
    """RGB of a color given by its inks (0 to 255)."""
    return np.rint([(255 - ink) * (255 - cmyk[3]) / 255 for ink in cmyk[:3]])


def four_channels(samples: tuple[int, ...], transform: int) -> bytes:
    """A JPEG file of one color whose four stored components have these values, under Adobe's marker."""
    inverted = tuple(255 - sample for sample in samples)  # Pillow's writer inverts
    data = encoded(Image.new("CMYK", (16, 16), inverted), "JPEG", quality=100)
    at = data.index(b"Adobe") + 11
    assert data[at] == 0
    return data[:at] + bytes([transform]) + data[at + 1 :]


@pytest.mark.parametrize("cmyk", [(0, 0, 0, 0), (0, 0, 0, 255), (200, 40, 90, 30), (10, 250, 0, 100)])
def test_cmyk_and_ycck_jpeg(cmyk: tuple[int, ...], tmp_path: Path) -> None:
    c, m, y, k = cmyk
    light, blue, red = (
        0.299 * c + 0.587 * m + 0.114 * y,
        128 - 0.168736 * c - 0.331264 * m + 0.5 * y,
        128 + 0.5 * c - 0.418688 * m - 0.081312 * y,
    )
    ycck = tuple(min(255, round(v)) for v in (light, blue, red, 255 - k))
    for samples, transform in ((tuple(255 - ink for ink in cmyk), 0), (ycck, 2)):
        data = four_channels(samples, transform)
        image = decode_rgb(data, "x")
        assert np.abs(image.astype(int) - inks(*cmyk)).max() <= 4
        assert np.array_equal(image, by_torchvision(data, tmp_path))
        stored, *_ = fit_jpeg(data, "x", 0, 500, 95)
        with Image.open(io.BytesIO(stored)) as reopened:
            assert reopened.mode == "RGB"
        assert np.abs(decode_rgb(stored, "x").astype(int) - inks(*cmyk)).max() <= 5


LEVELS = np.array([0, 1, 255, 256, 0x1234, 0x80FF, 0xFEFF, 0xFFFF], np.uint16)


@pytest.mark.parametrize(("color", "channels"), [(0, 1), (4, 2), (2, 3), (6, 4)], ids=["L", "LA", "RGB", "RGBA"])
def test_png_of_16_bits_keeps_the_high_byte(color: int, channels: int) -> None:
    pixels = np.stack([np.roll(LEVELS, k) for k in range(channels)], -1)
    data = png(len(LEVELS), 1, 16, color, b"\0" + pixels.astype(">u2").tobytes())
    wanted = (pixels >> 8)[None, :, [0, 0, 0] if channels < 3 else [0, 1, 2]]
    assert np.array_equal(decode_rgb(data, "x"), wanted)
    if channels < 3:
        assert np.abs(decode_rgb(fit_roc(data, "x", 0, 500, 100)[0], "x").astype(int) - wanted).max() < 4


def test_other_files_of_more_than_8_bits() -> None:
    wanted = np.repeat((LEVELS >> 8)[None, :, None], 3, axis=2)
    gray = Image.fromarray(LEVELS[None])
    for data in (
        encoded(gray, "TIFF"),
        encoded(gray, "PPM"),
        encoded(gray, "JPEG2000"),
        tiff([0] * 8, 16, LEVELS.tobytes()),
    ):
        assert np.array_equal(decode_rgb(data, "x"), wanted)
    twelve = tiff([0, 0x123, 0xABC, 0xFFF], 12, bytes.fromhex("000123abcfff"))
    assert decode_rgb(twelve, "x")[0, :, 0].tolist() == [0, 0x12, 0xAB, 0xFF]


def test_pixels_without_a_defined_white_are_refused() -> None:
    assert "whose white is not defined" in bad(tiff([0] * 4, 32, struct.pack("<4I", 0, 1, 2, 3)))
    assert "whose white is not defined" in bad(tiff([0] * 4, 16, struct.pack("<4h", 0, 100, -5, 300), t339=2))
    assert "whose white is not defined" in bad(encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF"))


@pytest.mark.parametrize("kind", see_through())
def test_transparency_is_dropped_as_torchvision_does(kind: str, tmp_path: Path) -> None:
    data = see_through()[kind]
    image = decode_rgb(data, "x")
    assert np.array_equal(image, by_torchvision(data, tmp_path))
    wanted = CODED.quantize(16) if "palette" in kind or kind == "gif" else CODED
    wanted = wanted.convert("L") if kind.startswith(("la", "gray")) else wanted
    assert np.array_equal(image, np.asarray(wanted.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "AVIF"])
def test_other_formats_whatever_their_name(kind: str) -> None:
    data = encoded(CODED, kind, **({"lossless": True} if kind == "WEBP" else {}))
    tolerance = 12 if kind == "AVIF" else 0
    assert np.abs(decode_rgb(data, "n01.JPEG").astype(int) - np.asarray(CODED)).max() <= tolerance
    stored, *size = fit_jpeg(data, "n01.JPEG", 0, 500, 95)
    assert stored[:3] == b"\xff\xd8\xff" and size == [HEIGHT, WIDTH]


def test_gray_and_two_colors() -> None:
    bits = Image.fromarray(np.asarray(CODED.convert("L")) > 120)
    assert bits.mode == "1"
    wanted = np.repeat((np.asarray(CODED.convert("L")) > 120)[..., None] * np.uint8(255), 3, axis=2)
    assert np.array_equal(decode_rgb(encoded(bits, "PNG"), "x"), wanted)
    gray = decode_rgb(encoded(CODED.convert("L"), "BMP"), "x")
    assert np.array_equal(gray, np.repeat(np.asarray(CODED.convert("L"))[..., None], 3, axis=2))


def test_color_profiles_are_ignored_and_removed(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain, tagged = jpeg(np.asarray(CODED)), encoded(CODED, "JPEG", quality=95, subsampling=0, icc_profile=profile)
    assert np.array_equal(decode_rgb(tagged, "x"), decode_rgb(plain, "x"))
    assert fit_jpeg(tagged, "x", 0, 500, 90)[0] is tagged
    for image in (fit_jpeg(tagged, "x", 0, 30, 90)[0], fit_roc(tagged, "x", 0, 500, 90)[0]):
        with Image.open(io.BytesIO(image)) as stored:
            assert "icc_profile" not in stored.info and b"ICC_PROFILE" not in image


def test_texts_in_the_file_are_removed() -> None:
    text = PngInfo()
    text.add_text("comment", "private")
    stored, *_ = fit_jpeg(encoded(CODED, "PNG", pnginfo=text, exif=exif(6)), "x", 0, 500, 90)
    assert b"private" not in stored and b"Exif" not in stored
    # JPEG comments end at 65533 bytes, those of GIF files do not.
    stored, *_ = fit_jpeg(encoded(CODED.quantize(8), "GIF", comment=b"c" * 70_000), "x", 0, 500, 90)
    assert stored == fit_jpeg(encoded(CODED.quantize(8), "GIF"), "x", 0, 500, 90)[0]


# From the upright picture to the stored rows, after the table in the EXIF standard.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, tmp_path: Path) -> None:
    upright = coded_image(HEIGHT, WIDTH, 3)
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(stored, kind, exif=exif(orientation), **options)
        assert np.array_equal(decode_rgb(data, "x", exif="apply"), upright)
        assert np.array_equal(decode_rgb(data, "x"), np.asarray(stored))
        assert np.array_equal(decode_rgb(data, "x"), by_torchvision(data, tmp_path))
    data = encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif(orientation))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode_rgb(data, "x", exif="apply"), np.asarray(ImageOps.exif_transpose(image)))
    assert fit_jpeg(data, "x", 0, 500, 95)[0] is data
    turned, *size = fit_jpeg(data, "x", 0, 500, 95, exif="apply")
    assert (turned is data) == (orientation == 1) and size == [HEIGHT, WIDTH]
    assert np.abs(decode_rgb(turned, "x", exif="apply").astype(int) - upright).mean() < 4
    for max_side in (500, 28, 8):  # 8 is decoded at half the size
        for image, *size in (
            fit_jpeg(data, "x", 0, max_side, 95, exif="apply"),
            fit_roc(data, "x", 0, max_side, 95, exif="apply")[:3],
        ):
            assert (
                size
                == list(image_size(image, "x"))
                == ([HEIGHT, WIDTH] if max_side == 500 else [round(max_side * 5 / 7), max_side])
            )
            corner = decode_rgb(image, "x")[0, 0].astype(int)
            assert np.abs(corner - upright[0, 0]).max() < 60  # red and green rise from here to 255


def test_orientation_of_tiff_is_pillows(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(np.rot90(coded_image(HEIGHT, WIDTH)).copy()), "TIFF", exif=exif(6))
    for option in ("ignore", "apply"):
        assert np.array_equal(decode_rgb(data, "x", exif=option), by_torchvision(data, tmp_path))
        assert fit_rgb(data, "x", 0, 28, exif=option).size == (28, 20)


@pytest.mark.parametrize(
    "body", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\xff\xff", b"Exif\0\0rubbish", exif(0), exif(9), exif(77)]
)
def test_invalid_exif_means_upright(body: bytes) -> None:
    data = encoded(CODED, "JPEG", exif=body)
    assert fit_jpeg(data, "x", 0, 500, 90, exif="apply")[0] is data


def test_unknown_exif_option_is_reported() -> None:
    with pytest.raises(InputError, match="exif='yes' must be one of ignore, apply"):
        check_fit(500, 90, exif="yes")
