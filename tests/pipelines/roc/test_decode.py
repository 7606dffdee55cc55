"""The batch kernels, compared with Pillow and with the plain resampler."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from fixres.pipelines.images.resampling import SIGNED_ONE, WEIGHT_ONE, fill_taps, num_taps
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.decoder.turbojpeg import Decompressor, load
from fixres.pipelines.roc.decoder.weighted_rows import MAX_FAST_TAPS, sum_rows_of_bytes
from fixres.pipelines.roc.encoder import RocQuality, encode
from fixres.pipelines.roc.layout import (
    BAD_BOX,
    BYTES,
    LEVEL_SHIFT,
    NOT_DECODABLE,
    NUM_COUNTS,
    OK,
    OUTSIDE_FILE,
    PIXELS,
    WRONG_SIZE,
)
from tests.coded import coded_image, jpeg, read_box
from tests.pipelines.images.plain_resampler import resize_box
from tests.pipelines.roc.conftest import decode_whole, needs_turbojpeg, photo, pillow, record

INF = float("inf")
FILTERS = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC


def decode(image, field, size, box, resolution, flip=False, inside=True, min_zoom=INF, bicubic=False):
    """Crop, code and counts of one sample. Without a `roc` field, the whole image is decoded."""
    data = np.frombuffer(image + field, np.uint8)
    table = np.array([[0, len(image), len(image), len(field), *size]])
    out, codes = np.zeros((1, resolution, resolution, 3), np.uint8), np.full(1, -1)
    counts, boxes = np.zeros((1, NUM_COUNTS), np.int64), np.array([box], float)
    how = np.array([flip]), np.array([bicubic]), inside
    if field:
        decode_samples(data, table, boxes, *how, min_zoom, out, codes, counts)
    else:
        load()
        decompressor = Decompressor()
        decode_whole(data, table, boxes, *how, decompressor.handle, out, codes, counts)
    return out[0], int(codes[0]), counts[0]


def difference(a, b):
    return np.abs(a.astype(int) - b)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([(97, 130), (200, 163), (64, 48), (33, 500)]),
    st.sampled_from(["4:2:0", "4:2:2", "4:4:4"]),
    st.sampled_from([8, 31, 32, 33, 64, 100]),
    st.booleans(),
    st.booleans(),
    st.data(),
)
def test_full_level_crops_match_pillow(size, subsampling, resolution, flip, bicubic, data):
    h, w = data.draw(st.integers(1, size[0])), data.draw(st.integers(1, size[1]))
    y, x = data.draw(st.integers(0, size[0] - h)), data.draw(st.integers(0, size[1] - w))
    image, field = record(*size, subsampling=subsampling)
    ours, code, counts = decode(image, field, size, (y, x, h, w), resolution, flip, bicubic=bicubic)
    crop = Image.fromarray(pillow(image)[y : y + h, x : x + w])
    theirs = np.asarray(crop.resize((resolution, resolution), FILTERS[bicubic]))
    theirs = theirs[:, ::-1] if flip else theirs
    assert code == OK and counts[LEVEL_SHIFT] == 0
    # Pillow clips and rounds colors before it resizes, the kernel after: saturated noise differs by more than a level.
    assert difference(ours, theirs).mean() <= 1.0
    assert np.percentile(difference(ours, theirs), 99) <= 8


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=needs_turbojpeg)])
@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 6)),
    st.booleans(),
    st.sampled_from(["4:2:0", "4:2:2", "4:4:4"]),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_images_of_a_few_pixels_match_pillow(whole, size, turned, subsampling, bicubic, seed):
    """libjpeg does not interpolate the chroma of images of at most four columns, along either axis."""
    size = size[::-1] if turned else size
    noise = np.random.default_rng(seed).integers(70, 187, (*size, 3), np.uint8)
    image, field = encode(noise, RocQuality(subsampling=subsampling))
    decoded = pillow(image)
    assume(decoded.min() > 0 and decoded.max() < 255)  # Pillow clips before it resizes
    ours, code, _ = decode(image, b"" if whole else field, size, (0, 0, *size), 32, bicubic=bicubic)
    theirs = np.asarray(Image.fromarray(decoded).resize((32, 32), FILTERS[bicubic]))
    assert code == OK and difference(ours, theirs).max() <= 2


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([32, 50, 128]), st.booleans(), st.tuples(*[st.floats(0, 1)] * 4))
def test_fractional_boxes_match_pillow(resolution, bicubic, shares):
    size = (200, 163)
    h, w = max(shares[0] * 200, 1.0), max(shares[1] * 163, 1.0)
    y, x = shares[2] * (200 - h), shares[3] * (163 - w)
    image, field = record(*size)
    ours, code, _ = decode(image, field, size, (y, x, h, w), resolution, inside=False, bicubic=bicubic)
    edges = (x, y, min(x + w, 163), min(y + h, 200))
    whole = Image.fromarray(pillow(image))
    theirs = np.asarray(whole.resize((resolution, resolution), FILTERS[bicubic], box=edges))
    assert code == OK and difference(ours, theirs).mean() <= 1.0


@pytest.mark.parametrize("bicubic", [False, True])
def test_colors_of_flat_images_are_exact(bicubic):
    for color in ((0, 0, 0), (255, 255, 255), (128, 128, 128), (200, 30, 60), (0, 255, 0), (10, 20, 250)):
        image, field = encode(np.full((64, 80, 3), color, np.uint8))
        ours, _, _ = decode(image, field, (64, 80), (3, 5, 50, 60), 33, bicubic=bicubic)
        assert difference(ours, pillow(image)[:33, :33]).max() <= 1


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("min_zoom", [INF, 0.5])
def test_a_coded_image_shows_its_box(flip, min_zoom):
    size, box = (301, 400), (40, 100, 200, 150)
    image, field = encode(coded_image(*size, code=3))
    ours, code, counts = decode(image, field, size, box, 96, flip, min_zoom=min_zoom)
    y, x, h, w, was_flipped = read_box(ours, *size)
    assert code == OK and was_flipped == flip and counts[LEVEL_SHIFT] == (min_zoom == 0.5)
    assert np.allclose((y, x, h, w), box, atol=1.5)
    assert abs(ours[..., 2].astype(float).mean() - (16 + 32 * 3)) < 3


def test_coarser_levels_resemble_the_full_level():
    size = (400, 500)
    image, field = record(*size)
    fine, _, all_counts = decode(image, field, size, (10, 20, 380, 400), 128)
    coarse, code, counts = decode(image, field, size, (10, 20, 380, 400), 128, min_zoom=0.9)
    assert code == OK and counts[LEVEL_SHIFT] == 1
    assert counts[PIXELS] < 0.3 * all_counts[PIXELS] and counts[BYTES] < 0.5 * all_counts[BYTES]
    psnr = 10 * np.log10(255**2 / (difference(fine, coarse) ** 2).mean())
    assert psnr > 32


def test_the_coarsest_sufficient_level_is_chosen():
    size = (400, 500)
    image, field = record(*size, num_levels=3, min_short_side=50)
    for side, min_zoom, shift in (
        (400, 0.9, 1),
        (400, 0.8, 1),
        (400, 0.78, 2),
        (399, 0.78, 1),
        (200, 1.0, 0),
        (229, 0.9, 0),
        (231, 0.9, 1),
    ):
        _, code, counts = decode(image, field, size, (0, 0, side, side), 128, min_zoom=min_zoom)
        assert (code, counts[LEVEL_SHIFT]) == (OK, shift), (side, min_zoom)


@pytest.mark.parametrize("size", [96, 128, 224])
@pytest.mark.parametrize("bicubic", [False, True])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:4:4"])
def test_photos_differ_from_pillow_by_less_than_half_a_level(size, bicubic, subsampling):
    """Training crops, test crops, and their mirror images."""
    image, field = record(400, 500, subsampling=subsampling)
    whole = Image.fromarray(pillow(image))
    for inside, box in ((True, (31, 50, 300, 401)), (True, (7, 9, 70, 60)), (False, (25.5, 75.25, 350.0, 349.5))):
        y, x, h, w = box
        ours, code, _ = decode(image, field, (400, 500), box, size, True, inside, bicubic=bicubic)
        edges = (x, y, x + w, y + h)
        crop = whole.crop(edges) if inside else whole
        theirs = crop.resize((size, size), FILTERS[bicubic], None if inside else edges)
        assert code == OK and difference(ours[:, ::-1], np.asarray(theirs)).mean() <= 0.5


@needs_turbojpeg
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}])
def test_ordinary_jpegs_are_decoded_whole(mode, options, tmp_path):
    whole = Image.fromarray(photo(97, 130)).convert(mode)
    whole.save(tmp_path / "x.jpg", quality=90, **options)
    data = (tmp_path / "x.jpg").read_bytes()
    ours, code, counts = decode(data, b"", (97, 130), (9, 21, 60, 70), 48, bicubic=mode == "L")
    crop = Image.open(tmp_path / "x.jpg").convert("RGB").crop((21, 9, 91, 69))
    theirs = np.asarray(crop.resize((48, 48), FILTERS[mode == "L"]))
    assert code == OK and list(counts) == [len(data), 97 * 130, 0]
    assert difference(ours, theirs).mean() <= 1.0


@needs_turbojpeg
def test_damage_gets_a_code_and_does_not_affect_the_next_image():
    size = (97, 130)
    image, field = record(*size)
    good = decode(image, field, size, (0, 0, 50, 50), 32)[0]
    load()
    bad_header = bytearray(image)
    bad_header[bad_header.index(b"\xff\xc4") + 3] = 0xFF  # a Huffman table of impossible length
    stored = [image, bytes(bad_header), image[: len(image) // 2] + b"\xff\xd9", image]
    data = np.frombuffer(b"".join(stored), np.uint8)
    starts = np.cumsum([0, *map(len, stored)])
    table = np.array([[starts[k], len(stored[k]), 0, 0, *size] for k in range(4)])
    out, codes, counts = np.empty((4, 32, 32, 3), np.uint8), np.empty(4, np.int64), np.empty((4, 3), np.int64)
    boxes, flips = np.tile([0.0, 0, 50, 50], (4, 1)), np.zeros(4, bool)
    decompressor = Decompressor()
    decode_whole(data, table, boxes, flips, flips, True, decompressor.handle, out, codes, counts)
    assert codes.tolist() == [OK, NOT_DECODABLE, NOT_DECODABLE, OK]
    assert difference(out[0], good).max() <= 1 and np.array_equal(out[0], out[3])


@needs_turbojpeg
def test_positions_and_boxes_out_of_range_get_a_code():
    size = (97, 130)
    image, field = record(*size)
    whole = (0, 0, *size)
    assert decode(image, field, (97, 131), whole, 32)[1] != OK
    assert decode(image, b"", (97, 131), (0, 0, 97, 131), 32)[1] == WRONG_SIZE
    for box in ((0, 0, 98, 5), (-1, 0, 5, 5), (float("nan"), 0, 5, 5), (0, 0, 0, 5), (0, 0, INF, 5)):
        assert decode(image, field, size, box, 32)[1] == BAD_BOX
    load()
    out, codes, counts = np.empty((1, 8, 8, 3), np.uint8), np.empty(1, np.int64), np.empty((1, 3), np.int64)
    boxes, flips = np.array([whole], float), np.zeros(1, bool)
    decompressor, data = Decompressor(), np.frombuffer(image, np.uint8)
    for start, length in ((0, len(image) + 1), (-1, 5), (2**62, 2**62), (len(image), 1), (0, -1)):
        table = np.array([[start, length, 0, 0, *size]])
        decode_whole(data, table, boxes, flips, flips, True, decompressor.handle, out, codes, counts)
        assert codes[0] == OUTSIDE_FILE
        decode_samples(data, table, boxes, flips, flips, True, INF, out, codes, counts)
        assert codes[0] == OUTSIDE_FILE


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 70), st.booleans(), st.integers(0, 2**31))
def test_sums_are_as_exact_as_stated(length, num_out, bicubic, seed):
    """Compared with float arithmetic on the same weights. More than 64 taps are summed exactly."""
    first, taps = np.empty(num_out, np.int32), num_taps(float(length), num_out, 0, length, bicubic)
    weights = np.empty((num_out, taps), np.uint16)
    fill_taps(0.0, float(length), 0, length, False, bicubic, first, weights)
    source = np.random.default_rng(seed).integers(0, 256, (length + 1, 64), np.uint8)
    out = np.empty((num_out, 64), np.uint16)
    sum_rows_of_bytes(source.reshape(-1), 0, 64, first, weights, bicubic, out)
    summed = 128 + out.view(np.int16) / 256 if bicubic else out / 256
    shares = weights.view(np.int16) / SIGNED_ONE if bicubic else weights / WEIGHT_ONE
    tolerance = 0.02 + (taps / 128 if bicubic else 0.13) * (taps <= MAX_FAST_TAPS)
    for i in range(num_out):
        exact = shares[i] @ source[first[i] : first[i] + taps]
        assert np.abs(summed[i] - np.clip(exact, 0, 255.99)).max() <= tolerance


@needs_turbojpeg
@pytest.mark.parametrize("bicubic", [False, True])
def test_large_reductions_match_the_plain_resampler(bicubic):
    image = photo(1400, 1300)
    data = jpeg(image, quality=95)
    ours, code, _ = decode(data, b"", (1400, 1300), (0, 0, 1400, 1300), 16, bicubic=bicubic)
    assert code == OK
    assert difference(ours, resize_box(pillow(data), (0, 0, 1400, 1300), (16, 16), bicubic=bicubic)).max() <= 2
