"""Random erasing against timm's: the law of the rectangles, and their colors."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from scipy import stats
from timm.data.random_erasing import RandomErasing

from fixres.augment.erasing import draw_boxes, erase
from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD

_MEAN, _STD = 255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)


def _erased_by_timm(num: int, side: int, prob: float) -> np.ndarray:
    """bool (num, side, side): the pixels that timm erased."""
    random.seed(0)
    eraser = RandomErasing(prob, device="cpu")
    return np.stack([(eraser(torch.ones(1, side, side)) == 0).squeeze(0).numpy() for _ in range(num)])


def _features(masks: np.ndarray) -> np.ndarray:
    """Area, height, top and left of the rectangle in each mask that has one."""
    rows, columns = masks.any(2), masks.any(1)
    numbers = np.stack([masks.sum((1, 2)), rows.sum(1), rows.argmax(1), columns.argmax(1)], 1)
    return numbers[masks.any((1, 2))]


def test_rectangles_follow_timms_law() -> None:
    num, side = 4000, 24
    boxes, present = draw_boxes(0.6, 1, num, side, np.random.default_rng(0))
    masks = np.zeros((num, side, side), bool)
    for k in np.flatnonzero(present):
        top, left, height, width = boxes[k, 0]
        masks[k, top : top + height, left : left + width] = True
    assert stats.binomtest(int(masks.any((1, 2)).sum()), num, 0.6).pvalue > 1e-4
    for ours, theirs in zip(_features(masks).T, _features(_erased_by_timm(num, side, 1.0)).T, strict=True):
        assert stats.ks_2samp(ours, theirs).pvalue > 1e-4


def test_several_rectangles_share_the_area() -> None:
    boxes, present = draw_boxes(1.0, 3, 6000, 500, np.random.default_rng(1))
    counts = present.sum(1)
    assert stats.chisquare(np.bincount(counts, minlength=4)[1:]).pvalue > 1e-4
    for count in (1, 2, 3):
        areas = boxes[counts == count, 0, 2:].prod(-1) / 500**2
        assert stats.kstest(areas * count, stats.uniform(0.02, 1 / 3 - 0.02).cdf).pvalue > 1e-4
    assert (boxes[present][:, :2] + boxes[present][:, 2:]).max() <= 500 and boxes.min() >= 0


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_only_the_rectangles_are_erased(mode: str) -> None:
    images = torch.full((2, 60, 60, 3), 7, dtype=torch.uint8)
    boxes = np.array([[[0, 0, 9, 9], [10, 20, 40, 30]], [[5, 5, 20, 20], [0, 0, 9, 9]]])
    present = np.array([[False, True], [False, False]])
    colors = np.random.default_rng(0).standard_normal((2, 2, 3))
    erased = erase(images, boxes, present, mode, colors, 3).numpy()
    inside = erased[0, 10:50, 20:50].reshape(-1, 3).astype(float)
    assert (images == 7).all() and (erased[1] == 7).all() and (erased == 7).all(-1).sum() >= 2 * 3600 - 1200
    if mode == "pixel":
        assert stats.kstest(inside.ravel(order="F") % 1, "norm").statistic > 0  # whole values
        uncut = stats.norm(_MEAN, _STD).cdf(inside + 0.5)
        for channel in range(3):
            middle = (inside[:, channel] > 0) & (inside[:, channel] < 255)
            assert abs((inside[middle, channel] <= np.rint(_MEAN[channel])).mean() - 0.5) < 0.06
        assert 0 < uncut.min() and len(np.unique(inside, axis=0)) > 1000
    else:
        expected = _MEAN + (_STD * colors[0, 1] if mode == "rand" else 0)
        assert np.abs(inside - np.clip(expected, 0, 255)).max() <= 0.5
