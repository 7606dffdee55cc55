"""The weights of the resampler, as `plain_resampler` applies them, against Pillow, torchvision and coded images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2.functional import resized_crop

from fixres.pipelines.images.resampling import WEIGHT_ONE, fill_taps, num_taps
from tests.coded import coded_image, read_box
from tests.pipelines.images.plain_resampler import resize_box

sides = st.integers(1, 90)
outputs = st.integers(1, 70)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape and a.dtype == b.dtype == np.uint8
    return int(np.abs(a.astype(int) - b).max())


def pillow(image: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float] | None) -> np.ndarray:
    """Pillow's resize; its box is (left, top, right, bottom)."""
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR, box=box))


@settings(max_examples=150, deadline=None)
@given(sides, sides, outputs, outputs, st.data())
@example(1, 1, 1, 1, None)
@example(1, 90, 70, 1, None)
@example(90, 1, 8, 8, None)
def test_integer_boxes_match_pillows_crop_and_resize(height, width, out_h, out_w, data):
    h = data.draw(st.integers(1, height)) if data else height
    w = data.draw(st.integers(1, width)) if data else width
    y = data.draw(st.integers(0, height - h)) if data else 0
    x = data.draw(st.integers(0, width - w)) if data else 0
    image = noise(height, width)
    ours = resize_box(image, (y, x, h, w), (out_h, out_w))
    assert difference(ours, pillow(image[y : y + h, x : x + w], (out_h, out_w), None)) <= 1
    flipped = resize_box(image, (y, x, h, w), (out_h, out_w), flip=True)
    assert np.array_equal(flipped, ours[:, ::-1])
    plane = resize_box(image[..., 1], (y, x, h, w), (out_h, out_w))
    assert np.array_equal(plane, ours[..., 1])


@settings(max_examples=150, deadline=None)
@given(sides, sides, outputs, outputs, st.tuples(*[st.floats(0, 1)] * 4))
def test_fractional_boxes_match_pillows_resize_with_box(height, width, out_h, out_w, shares):
    h, w = max(shares[0] * height, 0.05), max(shares[1] * width, 0.05)
    y, x = shares[2] * (height - h), shares[3] * (width - w)
    image = noise(height, width)
    ours = resize_box(image, (y, x, h, w), (out_h, out_w), inside=False)
    edges = (x, y, min(x + w, width), min(y + h, height))
    assert difference(ours, pillow(image, (out_h, out_w), edges)) <= 1


@pytest.mark.parametrize("size", [32, 128, 224, 300])
@pytest.mark.parametrize("box", [(0, 0, 300, 400), (17, 33, 201, 150), (100, 100, 64, 80), (299, 0, 1, 400)])
def test_matches_torchvision(box, size):
    image = noise(300, 400)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    theirs = resized_crop(tensor, *box, [size, size], antialias=True).permute(1, 2, 0).numpy()
    assert difference(resize_box(image, box, (size, size)), theirs) <= 1


def test_flat_images_keep_their_level():
    image = np.arange(256, dtype=np.uint8).repeat(36).reshape(256, 6, 6)
    for level in image:
        for size in (1, 4, 6, 31):
            assert (resize_box(level, (0, 0, 6, 6), (size, size)) == level[0, 0]).all()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(10, 40, 100, 80), (0.5, 3.25, 60.75, 150.5)])
def test_a_coded_image_shows_its_box(box, flip):
    out = resize_box(coded_image(160, 200), box, (64, 64), flip=flip, inside=False)
    y, x, h, w, was_flipped = read_box(out, 160, 200)
    assert was_flipped == flip
    assert np.allclose((y, x, h, w), box, atol=1.1)  # the filter is truncated at the image border


def test_pixels_outside_an_inside_box_are_not_used():
    image = noise(60, 60)
    changed = noise(61, 61)[:60, :60]
    changed[11:40, 13:37] = image[11:40, 13:37]
    box = (11, 13, 29, 24)
    assert np.array_equal(resize_box(image, box, (16, 16)), resize_box(changed, box, (16, 16)))


@settings(max_examples=200, deadline=None)
@given(st.floats(-5, 50), st.floats(0.01, 60), outputs, st.integers(0, 20), st.integers(1, 40), st.booleans())
def test_taps_stay_in_bounds_and_sum_to_one(start, length, num_out, low, extent, flip):
    high = low + extent
    first = np.empty(num_out, np.int32)
    weights = np.empty((num_out, num_taps(length, num_out, low, high)), np.uint16)
    fill_taps(start, length, low, high, flip, first, weights)
    assert first.min() >= low and first.max() + weights.shape[1] <= high
    assert (weights.astype(int).sum(1) == WEIGHT_ONE).all()
