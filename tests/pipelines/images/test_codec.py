"""Decoding against torchvision's own loader; re-encoding against Pillow's view of the result."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin
from torchvision.datasets.folder import default_loader

from fixres.pipelines.images.codec import check_fit, decode_rgb, encode_jpeg, fit_jpeg, image_size
from fixres.pipelines.spec import BadSampleError, InputError
from tests.coded import coded_image, jpeg, read_box

HEIGHT, WIDTH = 61, 83
CODED = Image.fromarray(coded_image(HEIGHT, WIDTH, 3))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def rotated_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    return exif


def transparent() -> Image.Image:
    image = CODED.convert("RGBA")
    image.putalpha(Image.fromarray(coded_image(HEIGHT, WIDTH)[..., 0]))
    return image


FITTING = {
    "baseline": encoded(CODED, "JPEG", subsampling=0),
    "4:2:0": encoded(CODED, "JPEG", subsampling=2),
    "4:1:1": encoded(CODED, "JPEG", subsampling="4:1:1"),
    "progressive": encoded(CODED, "JPEG", progressive=True),
    "gray": encoded(CODED.convert("L"), "JPEG"),
    "restart markers": encoded(CODED, "JPEG", restart_marker_blocks=1),
    "exif": encoded(CODED, "JPEG", exif=rotated_exif()),
    "comment": encoded(CODED, "JPEG", comment=b"\xff\xc3" * 300),
}
OTHER = {
    "rgb": encoded(CODED, "JPEG", keep_rgb=True),
    "cmyk": encoded(CODED.convert("CMYK"), "JPEG"),
    "png": encoded(CODED, "PNG"),
    "palette": encoded(CODED.quantize(64), "PNG", transparency=3),
    "alpha": encoded(transparent(), "PNG"),
    "webp": encoded(CODED, "WEBP"),
    "bmp": encoded(CODED, "BMP"),
    "two pictures": encoded(CODED, "MPO", save_all=True, append_images=[CODED]),
}


@pytest.mark.parametrize("kind", [*FITTING, *OTHER])
def test_decodes_as_torchvision(kind: str, tmp_path: Path) -> None:
    data = (FITTING | OTHER)[kind]
    file = tmp_path / "image"
    file.write_bytes(data)
    image = decode_rgb(data, "x")
    assert image.dtype == np.uint8 and image.shape == (HEIGHT, WIDTH, 3) and image.flags.c_contiguous
    assert np.array_equal(image, np.asarray(default_loader(str(file))))
    assert np.array_equal(decode_rgb(memoryview(data), "x"), image)
    assert image_size(data, "x") == (HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", FITTING)
def test_a_jpeg_that_fits_is_stored_unchanged(kind: str) -> None:
    assert fit_jpeg(FITTING[kind], "x", 0, WIDTH, 90) == (FITTING[kind], HEIGHT, WIDTH)


@pytest.mark.parametrize("kind", OTHER)
def test_everything_else_becomes_a_plain_jpeg(kind: str) -> None:
    data, height, width = fit_jpeg(OTHER[kind], "x", 0, 500, 95)
    assert (height, width) == (HEIGHT, WIDTH) == image_size(data, "x")
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.mode, image.info.get("progressive")) == ("JPEG", "RGB", None)
        assert JpegImagePlugin.get_sampling(image) == 2  # 4:2:0
    error = np.abs(decode_rgb(data, "x").astype(int) - decode_rgb(OTHER[kind], "x"))
    assert error.mean() < 4


@pytest.mark.parametrize(
    ("height", "width", "max_side", "expected"),
    [(800, 1200, 500, (333, 500)), (1200, 800, 500, (500, 333)), (501, 501, 500, (500, 500)), (3, 1500, 100, (1, 100))],
)
def test_long_side_is_shrunk_to_max_side(height: int, width: int, max_side: int, expected: tuple[int, int]) -> None:
    data, *size = fit_jpeg(jpeg(coded_image(height, width)), "x", 0, max_side, 90)
    assert tuple(size) == expected == image_size(data, "x")


def test_shrinking_keeps_the_geometry() -> None:
    data, *_ = fit_jpeg(jpeg(coded_image(700, 1000, 2)), "x", 0, 500, 95)
    square = decode_rgb(data, "x")[:350, :350]
    y, x, h, w, flip = read_box(square, 700, 1000)
    assert not flip
    assert np.allclose([y, x, h, w], [0, 0, 700, 700], atol=3)
    assert abs(int(np.median(square[..., 2])) - 80) <= 3


def test_quality_is_libjpegs() -> None:
    image = coded_image(64, 64)
    with Image.open(io.BytesIO(encode_jpeg(image, 50))) as at_50:
        assert at_50.quantization[0][0] == 16  # the standard's table itself
    assert len(encode_jpeg(image, 95)) > len(encode_jpeg(image, 30))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("kind", ["baseline", "progressive", "png"])
def test_truncated_image_is_reported(kind: str, share: float) -> None:
    # Noise, because a tenth of a coded image's small PNG is headers, which Pillow does not need.
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    data = {"png": encoded(noise, "PNG")}.get(kind) or FITTING[kind]
    for call in (lambda cut: decode_rgb(cut, "folder/x.jpg", 7), lambda cut: fit_jpeg(cut, "folder/x.jpg", 7, 500, 90)):
        with pytest.raises(BadSampleError, match=r"^folder/x\.jpg: ") as caught:
            call(data[: int(len(data) * share)])
        assert caught.value.index == 7
        assert "\n" not in str(caught.value) and " at 0x" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from([*FITTING, *OTHER]),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_give_an_image_or_a_named_error(kind: str, edits: list[tuple[int, int]]) -> None:
    data = bytearray((FITTING | OTHER)[kind])
    for position, value in edits:
        data[position % min(len(data), 700)] = value  # headers are where decoders stumble
    try:
        image, height, width = fit_jpeg(bytes(data), "x", 0, 500, 90)
    except BadSampleError as error:
        assert str(error).startswith("x: ") and "\n" not in str(error)
    else:
        assert image_size(image, "x") == (height, width)


@pytest.mark.parametrize(("max_side", "quality"), [(7, 90), (65501, 90), (500, 0), (500, 101)])
def test_impossible_settings_are_refused(max_side: int, quality: int) -> None:
    with pytest.raises(InputError, match="must be"):
        check_fit(max_side, quality)
