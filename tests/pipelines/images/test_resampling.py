"""The weights of the resampler, as `plain_resampler` applies them, against Pillow, torchvision and coded images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2.functional import resized_crop

from fixres.pipelines.images.resampling import SIGNED_ONE, WEIGHT_ONE, fill_taps, num_taps
from tests.coded import coded_image, read_box
from tests.pipelines.images.plain_resampler import resize_box

sides = st.integers(1, 90)
outputs = st.integers(1, 70)
filters = st.booleans()  # bicubic or not
both = pytest.mark.parametrize("bicubic", [False, True])


def noise(height: int, width: int, bicubic: bool = False) -> np.ndarray:
    """The cubic filter overshoots, and Pillow clips after columns, which it sums before rows: its noise is weaker."""
    low, high = (48, 208) if bicubic else (0, 256)
    return np.random.default_rng(height * 1000 + width).integers(low, high, (height, width, 3), np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


def pillow(
    image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None, bicubic: bool
) -> np.ndarray:
    """Pillow's resize; its box is (left, top, right, bottom)."""
    filter = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    return np.asarray(Image.fromarray(image).resize(size[::-1], filter, box=box))


@settings(max_examples=150, deadline=None)
@given(sides, sides, outputs, outputs, filters, st.data())
@example(1, 1, 1, 1, False, None)
@example(1, 90, 70, 1, True, None)
@example(90, 1, 8, 8, False, None)
def test_integer_boxes_match_pillows_crop_and_resize(height, width, out_h, out_w, bicubic, data):
    h = data.draw(st.integers(1, height)) if data else height
    w = data.draw(st.integers(1, width)) if data else width
    y = data.draw(st.integers(0, height - h)) if data else 0
    x = data.draw(st.integers(0, width - w)) if data else 0
    image = noise(height, width, bicubic)
    ours = resize_box(image, (y, x, h, w), (out_h, out_w), bicubic=bicubic)
    assert difference(ours, pillow(image[y : y + h, x : x + w], (out_h, out_w), None, bicubic)) <= 1
    flipped = resize_box(image, (y, x, h, w), (out_h, out_w), flip=True, bicubic=bicubic)
    assert np.array_equal(flipped, ours[:, ::-1])
    plane = resize_box(image[..., 1], (y, x, h, w), (out_h, out_w), bicubic=bicubic)
    assert np.array_equal(plane, ours[..., 1])


@settings(max_examples=150, deadline=None)
@given(sides, sides, outputs, outputs, filters, st.tuples(*[st.floats(0, 1)] * 4))
def test_fractional_boxes_match_pillows_resize_with_box(height, width, out_h, out_w, bicubic, shares):
    h, w = max(shares[0] * height, 0.05), max(shares[1] * width, 0.05)
    y, x = shares[2] * (height - h), shares[3] * (width - w)
    image = noise(height, width, bicubic)
    ours = resize_box(image, (y, x, h, w), (out_h, out_w), inside=False, bicubic=bicubic)
    edges = (x, y, min(x + w, width), min(y + h, height))
    assert difference(ours, pillow(image, (out_h, out_w), edges, bicubic)) <= 1


@both
@pytest.mark.parametrize("size", [32, 128, 224, 300])
@pytest.mark.parametrize("box", [(0, 0, 300, 400), (17, 33, 201, 150), (100, 100, 64, 80), (299, 0, 1, 400)])
def test_matches_torchvision(box, size, bicubic):
    image = noise(300, 400, bicubic)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    filter = InterpolationMode.BICUBIC if bicubic else InterpolationMode.BILINEAR
    theirs = resized_crop(tensor, *box, [size, size], filter, antialias=True).permute(1, 2, 0).numpy()
    assert difference(resize_box(image, box, (size, size), bicubic=bicubic), theirs) <= 1


@both
def test_flat_images_keep_their_level(bicubic):
    image = np.arange(256, dtype=np.uint8).repeat(36).reshape(256, 6, 6)
    for level in image:
        for size in (1, 4, 6, 31):
            assert (resize_box(level, (0, 0, 6, 6), (size, size), bicubic=bicubic) == level[0, 0]).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(10, 40, 100, 80), (0.5, 3.25, 60.75, 150.5)])
def test_a_coded_image_shows_its_box(box, flip):
    out = resize_box(coded_image(160, 200), box, (64, 64), flip=flip, inside=False)
    y, x, h, w, was_flipped = read_box(out, 160, 200)
    assert was_flipped == flip
    assert np.allclose((y, x, h, w), box, atol=1.1)  # the filter is truncated at the image border


@both
def test_pixels_outside_an_inside_box_are_not_used(bicubic):
    image = noise(60, 60)
    changed = noise(61, 61)[:60, :60]
    changed[11:40, 13:37] = image[11:40, 13:37]
    box = (11, 13, 29, 24)
    ours, theirs = (resize_box(one, box, (16, 16), bicubic=bicubic) for one in (image, changed))
    assert np.array_equal(ours, theirs)


@settings(max_examples=200, deadline=None)
@given(st.floats(-5, 50), st.floats(0.01, 60), outputs, st.integers(0, 20), st.integers(1, 40), st.booleans(), filters)
def test_taps_stay_in_bounds_and_sum_to_one(start, length, num_out, low, extent, flip, bicubic):
    high = low + extent
    first = np.empty(num_out, np.int32)
    weights = np.empty((num_out, num_taps(length, num_out, low, high, bicubic)), np.uint16)
    fill_taps(start, length, low, high, flip, bicubic, first, weights)
    assert first.min() >= low and first.max() + weights.shape[1] <= high
    if bicubic:
        weights = weights.view(np.int16)
        assert weights.min() >= -0.2 * SIGNED_ONE and weights.max() <= 1.2 * SIGNED_ONE
    assert (weights.astype(int).sum(1) == (SIGNED_ONE if bicubic else WEIGHT_ONE)).all()
