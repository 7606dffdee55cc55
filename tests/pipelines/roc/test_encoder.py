"""Records are standard JPEG files with an index of their segments, whatever the image."""

from __future__ import annotations

import io
import re
import threading

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fixres.pipelines.roc.encoder import SUBSAMPLINGS, RocQuality, encode, encode_level, index_jpeg
from fixres.pipelines.roc.layout import describe
from fixres.pipelines.spec import InputError
from tests.pipelines.roc.conftest import photo, pillow


def plain(pixels: np.ndarray, quality: int, subsampling: str) -> np.ndarray:
    """The pixels of an ordinary JPEG file of the same image, without restart markers and optimized tables."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    return pillow(buffer.getvalue())


@settings(max_examples=120, deadline=None)
@example(1, 1, 0, "4:2:0", 90)
@example(8, 9, 1, "4:2:0", 100)
@example(9, 8, 1, "4:2:0", 1)
@example(24, 40, 2, "4:2:0", 95)  # an odd number of blocks either way: half an MCU is filled up
@example(24, 40, 2, "4:2:2", 95)
@example(300, 400, 0, "4:4:4", 100)  # more bytes than Pillow expects
@example(300, 400, 2, "4:2:0", 94)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99), st.sampled_from(SUBSAMPLINGS), st.integers(1, 100))
def test_any_image_becomes_an_ordinary_jpeg_with_an_index(
    height: int, width: int, seed: int, subsampling: str, quality: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    if seed % 3 == 0:  # extremes: the largest coefficients
        pixels = pixels // 128 * 255
    elif seed % 3 == 1:  # smooth: long runs of zeros
        pixels = np.asarray(Image.fromarray(pixels[:4, :4]).resize((width, height), Image.Resampling.BICUBIC))
    level = encode_level(Image.fromarray(pixels), 3, quality, subsampling)
    assert (level.height, level.width, level.shift, level.interval) == (height, width, 3, 1)
    assert np.array_equal(pillow(level.jpeg), plain(pixels, quality, subsampling))
    ends = [found.end() for found in re.finditer(rb"\xff[\xd0-\xd9]", level.jpeg[level.header_size :])]
    assert np.cumsum(level.lengths).tolist() == ends and level.header_size + ends[-1] == len(level.jpeg)
    assert len(ends) == -(-height // level.mcu_height) * -(-width // level.mcu_width)
    assert level.jpeg[level.sof_height : level.sof_height + 4] == height.to_bytes(2, "big") + width.to_bytes(2, "big")


def test_noise_needs_no_luck_with_the_size_of_pillows_buffer(capfd: pytest.CaptureFixture) -> None:
    """libjpeg prints 'Suspension not allowed here' and fails if the buffer is too small."""
    noise = np.random.default_rng(0).integers(0, 2, (500, 700, 3), np.uint8) * np.uint8(255)
    found = []
    threads = [
        threading.Thread(target=lambda size=size: found.append(encode(noise[:size], RocQuality(quality=100))))
        for size in (100, 500, 300, 200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pillow(image).shape[0] for image, _ in found) == [100, 200, 300, 500]
    assert capfd.readouterr().err == ""


def test_metadata_is_not_stored() -> None:
    image, buffer = Image.fromarray(photo(40, 56)), io.BytesIO()
    exif = Image.Exif()
    exif[0x010F] = "a maker"
    image.save(buffer, "JPEG", comment=b"a comment", exif=exif, dpi=(300, 300), icc_profile=b"a profile")
    opened = Image.open(buffer)
    assert encode(opened) == encode(np.asarray(opened))


def test_all_levels_are_files_that_pillow_reads() -> None:
    image, field = encode(photo(400, 300), RocQuality(num_levels=3, min_short_side=40))
    assert pillow(image).shape == (400, 300, 3)
    levels = describe(field, len(image), 400, 300)
    shapes = [pillow(field[level["start"] : level["start"] + level["size"]]).shape for level in levels[1:]]
    assert shapes == [(200, 150, 3), (100, 75, 3)]


def test_qualities_are_those_of_their_levels() -> None:
    def sizes(**options: int) -> tuple[int, int]:
        image, field = encode(photo(200, 240), RocQuality(min_short_side=50, **options))
        return len(image), describe(field, len(image), 200, 240)[1]["size"]

    full, half = sizes(quality=90, coarse_quality=90)
    assert sizes(quality=60, coarse_quality=90)[0] < full and sizes(quality=60, coarse_quality=90)[1] == half
    assert sizes(quality=90, coarse_quality=60)[0] == full and sizes(quality=90, coarse_quality=60)[1] < half


def test_images_beyond_libjpegs_limit_are_refused() -> None:
    with pytest.raises(InputError, match="65501 x 1 pixels, JPEG allows 65500 a side; shrink it"):
        encode(np.zeros((1, 65501, 3), np.uint8))


@pytest.mark.parametrize("options", [{}, {"restart_marker_blocks": 3}, {"progressive": True}])
def test_files_without_restart_markers_in_each_row_have_no_index(options: dict) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photo(40, 64)).save(buffer, "JPEG", subsampling="4:4:4", **options)
    with pytest.raises(ValueError, match="JPEG file"):
        index_jpeg(buffer.getvalue())
