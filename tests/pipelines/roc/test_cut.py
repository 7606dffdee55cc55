"""Cuts are standard JPEG files with the same pixels as the whole image."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from fixres.pipelines.roc.cut import cut_crop
from fixres.pipelines.roc.encoder import RocQuality, encode, index_jpeg
from fixres.pipelines.roc.halving import halve
from fixres.pipelines.roc.layout import describe, pack
from fixres.pipelines.spec import InputError
from tests.coded import coded_image
from tests.pipelines.roc.conftest import photo, pillow, record

SIZES = ((97, 130), (200, 163), (64, 48), (16, 16), (1, 9), (33, 500))


def cut_and_whole(size, box, shift_wanted=0, **options):
    """Pixels of the cut, the same window of the whole level, and its position, decoded by Pillow."""
    image, field = record(*size, **options)
    level = describe(field, len(image), *size)[shift_wanted]
    whole = image if level["in_image"] else field[level["start"] : level["start"] + level["size"]]
    min_zoom = float("inf") if shift_wanted == 0 else 1e-9
    jpeg, (y, x), shift = cut_crop(image, field, size, box, 64, min_zoom)
    assert shift == level["shift"]
    part = pillow(jpeg)
    return part, pillow(whole)[y : y + part.shape[0], x : x + part.shape[1]], (y, x)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(SIZES), st.sampled_from(["4:2:0", "4:2:2", "4:4:4"]), st.data())
def test_pixels_of_the_box_equal_the_whole_image(size, subsampling, data):
    h, w = data.draw(st.integers(1, size[0])), data.draw(st.integers(1, size[1]))
    y, x = data.draw(st.integers(0, size[0] - h)), data.draw(st.integers(0, size[1] - w))
    part, whole, (top, left) = cut_and_whole(size, (y, x, h, w), subsampling=subsampling)
    inner = (slice(y - top, y - top + h), slice(x - left, x - left + w))
    assert part[inner].shape == (h, w, 3)
    assert np.array_equal(part[inner], whole[inner])
    # only the MCUs of the box and its chroma neighbors, and the one before the last columns
    assert top <= y < top + 17 and left <= x < left + (17 if x + 5 <= size[1] else 21)
    assert part.shape[0] <= y - top + h + 17 and part.shape[1] <= x - left + w + 17


@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
@pytest.mark.parametrize("num_last", range(1, 7))
def test_chroma_of_the_last_columns_equals_the_whole_image(num_last, subsampling):
    """A decoder repeats the chroma of an image of at most 4 columns, which a cut of only the last MCU could be."""
    size = (40, 32 + num_last)
    for x in range(30, size[1]):
        part, whole, (top, left) = cut_and_whole(size, (8, x, 20, size[1] - x), subsampling=subsampling)
        inner = (slice(8 - top, 28 - top), slice(x - left, None))
        assert np.array_equal(part[inner], whole[inner])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pixels_of_coarser_levels_equal_the_whole_level(data):
    size = (200, 163)
    h, w = data.draw(st.integers(2, size[0])), data.draw(st.integers(2, size[1]))
    y, x = data.draw(st.integers(0, size[0] - h)), data.draw(st.integers(0, size[1] - w))
    part, whole, (top, left) = cut_and_whole(size, (y, x, h, w), 1, min_short_side=32)
    inner = (slice(y // 2 - top, -(-(y + h) // 2) - top), slice(x // 2 - left, -(-(x + w) // 2) - left))
    assert np.array_equal(part[inner], whole[inner])


def test_a_cut_of_the_whole_image_is_the_stored_file():
    image, field = record(97, 130)
    assert cut_crop(image, field, (97, 130), (0, 0, 97, 130), 8)[0] == image


@pytest.mark.parametrize("box", [(0, 0, 50, 60), (31, 47, 66, 83), (80, 100, 17, 30)])
def test_opencv_and_dali_decode_cuts_as_pillow_does(box):
    jpeg, _, _ = cut_crop(*record(97, 130), (97, 130), box, 64)
    ours = pillow(jpeg)
    cv2 = pytest.importorskip("cv2")
    theirs = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    fn, pipeline = pytest.importorskip("nvidia.dali.fn"), pytest.importorskip("nvidia.dali").Pipeline
    with pipeline(batch_size=1, num_threads=1, device_id=None) as built:
        encoded = fn.external_source(source=lambda: [np.frombuffer(jpeg, np.uint8)], batch=True)
        built.set_outputs(fn.decoders.image(encoded, device="cpu", jpeg_fancy_upsampling=True))
    built.build()
    assert np.array_equal(np.array(built.run()[0][0]), ours)


def test_a_coarser_level_is_not_shifted():
    """Pixel i of the half level covers pixels 2 i and 2 i + 1, whatever the parity of the sides."""
    for height, width in ((96, 128), (97, 127), (101, 64)):
        half = halve(coded_image(height, width)).astype(float)
        assert half.shape == ((height + 1) // 2, (width + 1) // 2, 3)
        expected = (2 * np.arange(half.shape[1]) + 0.5) * 255 / (width - 1)
        assert np.abs(half[half.shape[0] // 2, 4:-4, 0] - expected[4:-4]).max() < 1.5


def test_number_of_levels_follows_the_options():
    image, field = record(200, 163, num_levels=4, min_short_side=40)
    assert [level["shift"] for level in describe(field, len(image), 200, 163)] == [0, 1, 2]


def test_pillow_reads_the_image_field_as_an_ordinary_jpeg():
    image, _ = record(97, 130)
    plain = io.BytesIO()
    Image.fromarray(photo(97, 130)).save(plain, "JPEG", quality=90, subsampling="4:2:0")
    assert np.array_equal(pillow(image), pillow(plain.getvalue()))


def test_gray_and_transparent_images_become_rgb():
    for mode in ("L", "RGBA", "P"):
        image, field = encode(Image.fromarray(photo(64, 80)).convert(mode))
        assert pillow(image).shape == (64, 80, 3)
        assert len(describe(field, len(image), 64, 80)) == 1


def test_cuts_with_several_mcus_per_segment():
    """Other writers may put several MCUs into a segment."""
    size = (96, 128)
    buffer = io.BytesIO()
    Image.fromarray(photo(*size)).save(buffer, "JPEG", quality=90, subsampling="4:2:0", restart_marker_blocks=4)
    level = index_jpeg(buffer.getvalue())
    assert level.interval == 4 and len(level.lengths) == 6 * 2
    jpeg, (y, x), _ = cut_crop(level.jpeg, pack([level]), size, (20, 70, 40, 50), 32)
    part, whole = pillow(jpeg), pillow(level.jpeg)
    assert (y, x) == (16, 64) and np.array_equal(part[4:44, 6:56], whole[20:60, 70:120])


@pytest.mark.parametrize("options", [{"quality": 0}, {"subsampling": "4:1:1"}, {"num_levels": 0}])
def test_impossible_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        RocQuality(**options)


def test_layout_is_pinned():
    """The bytes of version 1. Users have such files, so another layout needs another version."""
    field = record(16, 32)[1]
    words = np.frombuffer(field[: 4 * 16], "<u4").tolist()
    size = len(record(16, 32)[0])
    assert words[:4] == [0x31436F52, 1, 1, 64 + 2 * 2]
    assert words[4:10] == [1, 0, size, 16, 32, words[9]] and words[11:] == [0, 16, 16, 1, 64]
    lengths = np.frombuffer(field[64:], "<u2")
    assert words[9] + lengths.sum() == size
    assert record(16, 32)[0][words[10] - 5 : words[10] - 3] == b"\xff\xc0"


@example((1, 1))
@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_any_size_can_be_encoded(size):
    image, field = encode(photo(*size), RocQuality(min_short_side=4, num_levels=4))
    for level in describe(field, len(image), *size):
        assert level["height"] == -(-size[0] >> level["shift"]) and level["width"] == -(-size[1] >> level["shift"])
