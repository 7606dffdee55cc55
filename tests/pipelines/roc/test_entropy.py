"""The decoder of segments gives libjpeg's samples to the bit and refuses damaged data."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fixres.pipelines.roc.cut import cover
from fixres.pipelines.roc.decoder.jpeg_tables import SCAN_ORDER, empty_tables, read_tables
from fixres.pipelines.roc.decoder.segments import decode_window, empty_work, lay_out_planes, read_header
from fixres.pipelines.roc.decoder.turbojpeg import Decompressor, chroma_factors, decode_planes, load
from fixres.pipelines.roc.decoder.turbojpeg import read_header as read_whole_header
from fixres.pipelines.roc.decoder.whole_image import lay_out_planes as lay_out_whole_planes
from fixres.pipelines.roc.encoder import RocQuality, encode, index_jpeg
from fixres.pipelines.roc.layout import BAD_INDEX, LEVEL_WORDS, NOT_DECODABLE, OK, WIDTH, WRONG_SIZE, pack, read_level
from tests.pipelines.roc.conftest import needs_turbojpeg, photo
from tests.pipelines.roc.hand_made import BEHIND_IT, LAST_PLACE, ZRL, one_block


def ours(image: bytes, field: bytes, size, rectangle=None):
    """Error code, planes of a rectangle (y low, y high, x low, x high; the whole image if None) and its window."""
    store, record = np.frombuffer(image, np.uint8), np.frombuffer(field, np.uint8)
    level, window, tables = np.zeros(LEVEL_WORDS, np.int64), np.zeros(8, np.int64), empty_tables()
    assert read_level(record, 0, store.size, *size, level) == OK
    error = read_header(store, level, tables)
    if error != OK:
        return error, None, None
    cover(level, *(rectangle or (0, size[0], 0, size[1])), window)
    starts, strides = np.empty(3, np.int64), np.empty(3, np.int32)
    planes = np.empty(lay_out_planes(level, window, starts, strides), np.uint8)
    error = decode_window(store, record, level, window, tables, empty_work(), planes, starts, strides)
    return error, _split(planes, starts, strides, window[6], window[7], (tables.frame[3], tables.frame[4])), window


def libjpegs(image: bytes):
    """Planes of the whole image by libjpeg-turbo, or None if it reports an error."""
    load()
    jpeg, numbers, decompressor = np.frombuffer(image, np.uint8), np.empty(4, np.int32), Decompressor()
    assert read_whole_header(decompressor.handle, jpeg, numbers)
    height, width, factors = int(numbers[1]), int(numbers[0]), chroma_factors(numbers[2])
    starts, strides = np.empty(3, np.int64), np.empty(3, np.int32)
    planes = np.empty(lay_out_whole_planes(height, width, factors, starts, strides), np.uint8)
    if not decode_planes(decompressor.handle, jpeg, height, width, planes, starts, strides):
        return None
    return _split(planes, starts, strides, height, width, factors)


def _split(planes, starts, strides, height, width, factors):
    sides = [(height, width)] + 2 * [(-(-height // factors[0]), -(-width // factors[1]))]
    return [
        np.lib.stride_tricks.as_strided(planes[starts[k] :], sides[k], (int(strides[k]), 1)).copy() for k in range(3)
    ]


def record_of(array, interval=1, quality=90, subsampling="4:2:0", optimize=True):
    """Fields of an image encoded with any restart interval, which `encode` does not offer."""
    buffer = io.BytesIO()
    options = {"subsampling": subsampling} if array.ndim == 3 else {}
    Image.fromarray(array).save(
        buffer, "JPEG", quality=quality, optimize=optimize, restart_marker_blocks=interval, **options
    )
    return buffer.getvalue(), pack([index_jpeg(buffer.getvalue())])


@needs_turbojpeg
@settings(max_examples=60, deadline=None)
@given(
    size=st.sampled_from([(64, 96), (97, 130), (8, 8), (1, 1), (33, 17), (200, 163)]),
    subsampling=st.sampled_from(["4:2:0", "4:2:2", "4:4:4"]),
    quality=st.sampled_from([1, 10, 50, 75, 90, 95, 100]),
    noisy=st.booleans(),
    seed=st.integers(0, 5),
)
def test_samples_equal_libjpegs(size, subsampling, quality, noisy, seed):
    image = photo(*size, seed)
    if noisy:  # longest codes, saturated samples
        image = np.random.default_rng(seed).choice(np.array([0, 255], np.uint8), (*size, 3))
    jpeg, field = encode(image, RocQuality(quality=quality, subsampling=subsampling))
    error, planes, _ = ours(jpeg, field, size)
    assert error == OK
    for got, wanted in zip(planes, libjpegs(jpeg), strict=True):
        assert np.array_equal(got, wanted)


@needs_turbojpeg
@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("interval", [1, 2, 4])
def test_restart_intervals_and_standard_huffman_tables(interval, optimize):
    image, size = photo(100, 64 * 2), (100, 128)
    jpeg, field = record_of(image, interval, optimize=optimize)
    error, planes, _ = ours(jpeg, field, size)
    assert error == OK and all(np.array_equal(a, b) for a, b in zip(planes, libjpegs(jpeg), strict=True))


@needs_turbojpeg
def test_gray_images_have_one_plane():
    image = photo(50, 70)[..., 0]
    jpeg, field = record_of(image)
    error, planes, _ = ours(jpeg, field, image.shape)
    assert error == OK and np.array_equal(planes[0], libjpegs(jpeg)[0])


@needs_turbojpeg
@settings(max_examples=50, deadline=None)
@given(st.data())
def test_a_window_equals_that_part_of_the_image(data):
    size = (200, 163)
    y, x = data.draw(st.integers(0, 199)), data.draw(st.integers(0, 162))
    rectangle = (y, data.draw(st.integers(y + 1, 200)), x, data.draw(st.integers(x + 1, 163)))
    jpeg, field = encode(photo(*size))
    error, planes, window = ours(jpeg, field, size, rectangle)
    assert error == OK
    for plane, whole, factor in zip(planes, libjpegs(jpeg), (1, 2, 2), strict=True):
        y, x = int(window[4]) // factor, int(window[5]) // factor
        assert np.array_equal(plane, whole[y : y + plane.shape[0], x : x + plane.shape[1]])


def test_scan_order_is_that_of_the_standard():
    assert SCAN_ORDER[:10].tolist() == [0, 1, 8, 16, 9, 2, 3, 10, 17, 24]
    assert SCAN_ORDER[-4:].tolist() == [47, 55, 62, 63] and sorted(SCAN_ORDER) == list(range(64))


def _first_segment(jpeg: bytes) -> tuple[int, int]:
    level = index_jpeg(jpeg)
    return level.header_size, level.header_size + int(level.lengths[0]) - 2


def test_segments_of_the_wrong_length_are_refused():
    """libjpeg skips surplus bytes and invents missing ones; Pillow shows both images without an error."""
    size = (64, 96)
    jpeg, _ = encode(photo(*size))
    _, end = _first_segment(jpeg)
    longer = jpeg[:end] + b"\x55" + jpeg[end:]
    shorter = jpeg[: end - 1] + jpeg[end:]
    for damaged in (longer, shorter):
        level = index_jpeg(damaged)
        error, _, _ = ours(damaged, pack([level]), size)
        assert error == NOT_DECODABLE
        assert Image.open(io.BytesIO(damaged)).convert("RGB").size == (96, 64)


@needs_turbojpeg
def test_all_damage_that_libjpeg_finds_is_found():
    """Many flipped bits cannot be found: a changed value of the same length is a valid image of something else."""
    size, random, found, by_libjpeg = (64, 96), np.random.default_rng(5), 0, 0
    jpeg, field = encode(photo(*size))
    header = index_jpeg(jpeg).header_size
    for _ in range(300):
        damaged = bytearray(jpeg)
        damaged[int(random.integers(header, len(jpeg) - 2))] ^= 1 << int(random.integers(0, 8))
        refused = ours(bytes(damaged), field, size)[0] != OK
        missed = libjpegs(bytes(damaged)) is None and not refused
        assert not missed
        found, by_libjpeg = found + refused, by_libjpeg + (libjpegs(bytes(damaged)) is None)
    assert found > by_libjpeg > 0


def test_headers_that_disagree_with_the_record_are_refused():
    size = (64, 96)
    jpeg, field = encode(photo(*size))
    frame = index_jpeg(jpeg).sof_height
    wider = jpeg[: frame + 3] + b"\x70" + jpeg[frame + 4 :]
    assert ours(wider, field, size)[0] == WRONG_SIZE
    sampling = jpeg[: frame + 6] + b"\x21" + jpeg[frame + 7 :]
    assert ours(sampling, field, size)[0] == WRONG_SIZE


def test_an_index_that_points_between_markers_is_refused():
    size = (64, 96)
    jpeg, field = encode(photo(*size))
    start = len(field) - 2 * len(index_jpeg(jpeg).lengths)
    level = np.zeros(LEVEL_WORDS, np.int64)
    read_level(np.frombuffer(field, np.uint8), 0, len(jpeg), *size, level)
    assert level[WIDTH] == 96
    shifted = bytearray(field)
    shifted[start] += 3
    assert ours(jpeg, bytes(shifted), size)[0] in (BAD_INDEX, NOT_DECODABLE)


@pytest.mark.parametrize("kind", ["progressive", "arithmetic", "truncated", "twelve bits", "no tables", "two scans"])
def test_other_kinds_of_jpeg_are_refused(kind):
    jpeg, _ = encode(photo(64, 96))
    level = index_jpeg(jpeg)
    header = bytearray(jpeg[: level.header_size])
    tables = empty_tables()
    assert read_tables(np.frombuffer(bytes(header), np.uint8), tables)
    frame = level.sof_height
    if kind == "progressive":
        header[frame - 4] = 0xC2
    elif kind == "arithmetic":
        header[frame - 4] = 0xC9
    elif kind == "truncated":
        del header[-3:]
    elif kind == "twelve bits":
        header[frame - 1] = 12
    elif kind == "no tables":
        header[header.index(b"\xff\xc4") + 1] = 0xFE
    else:
        header[-3] = 1
    assert not read_tables(np.frombuffer(bytes(header), np.uint8), tables)


@pytest.mark.parametrize(
    ("symbols", "code"),
    [
        ([ZRL, ZRL, ZRL, LAST_PLACE], OK),
        ([ZRL, ZRL, ZRL, BEHIND_IT], NOT_DECODABLE),
        ([ZRL, ZRL, ZRL, ZRL], NOT_DECODABLE),
    ],
)
def test_a_coefficient_behind_the_last_one_is_refused(symbols, code):
    jpeg = one_block(symbols)
    assert ours(jpeg, pack([index_jpeg(jpeg)]), (8, 8))[0] == code
