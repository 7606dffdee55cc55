"""Crop boxes, flips and filters: pure functions of (seed, epoch, index), see `fixres.pipelines.sampling`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fixres.pipelines.sampling.philox import (
    STREAM_CROP,
    STREAM_FLIP,
    STREAM_INTERPOLATION,
    STREAM_SHIFT,
    STREAM_VIEWS,
    random_words,
    uniforms,
)
from fixres.pipelines.spec import Crop, EvalCrop, ShiftCrop, TrainCrop

_ATTEMPTS = 10  # torchvision's RandomResizedCrop.get_params


class Boxes(NamedTuple):
    """Crop rectangles in pixels of the stored images."""

    yxhw: np.ndarray  # (N, 4): y, x, height, width; int64 for training crops, else float64
    flip: np.ndarray  # bool (N,), mirror the crop horizontally
    bicubic: np.ndarray  # bool (N,), resize with the bicubic filter, else with the bilinear one


def crop_boxes(crop: Crop, seed: int, epoch: int, index: np.ndarray, sizes: np.ndarray, resolution: int) -> Boxes:
    """Boxes, flips and filters of the samples `index`.

    Args:
        crop: training, evaluation or shifted crop.
        seed: the run's seed.
        epoch: current epoch.
        index: integers (N,), positions in the data set.
        sizes: integers (N, 2), height and width of each stored image.
        resolution: output side in pixels. Training boxes do not depend on it.
    """
    if isinstance(crop, TrainCrop):
        yxhw = training_boxes(crop, seed, epoch, index, sizes)
    elif isinstance(crop, ShiftCrop):
        yxhw = shifted_boxes(crop, seed, epoch, index, sizes, resolution)
    else:
        yxhw = center_boxes(crop, sizes, resolution)
    flip = uniforms(seed, STREAM_FLIP, epoch, index, 1)[:, 0] < crop.hflip
    bicubic = np.full(len(flip), crop.interpolation == "bicubic")
    if crop.interpolation == "random":
        bicubic = uniforms(seed, STREAM_INTERPOLATION, epoch, index, 1)[:, 0] < 0.5
    return Boxes(yxhw, flip, bicubic)


def seed_of_view(seed: int, view: int) -> int:
    """The seed of the boxes of one of several crops of an image; that of the first is `seed` itself."""
    if view == 0:
        return seed
    low, high = random_words(seed, STREAM_VIEWS, 0, np.array([view]), 2)[0].tolist()
    return low | high << 32


def training_boxes(crop: TrainCrop, seed: int, epoch: int, index: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """torchvision's RandomResizedCrop: the first of ten random boxes that fits into the image.

    If none fits, the box is the largest centered one of an allowed aspect ratio. Rejecting boxes that do not fit
    biases the area downwards: at scale (0.08, 1) the mean is 0.432 of a 375 x 500 image, not 0.54.

    Returns:
        int64 (N, 4): y, x, h, w.
    """
    height, width = np.asarray(sizes, np.int64).T
    draws = uniforms(seed, STREAM_CROP, epoch, index, 2 * _ATTEMPTS + 2)
    area_share = crop.scale[0] + draws[:, 0 : 2 * _ATTEMPTS : 2] * (crop.scale[1] - crop.scale[0])
    log_low, log_high = np.log(crop.ratio[0]), np.log(crop.ratio[1])
    aspect = np.exp(log_low + draws[:, 1 : 2 * _ATTEMPTS : 2] * (log_high - log_low))
    area = area_share * (height * width)[:, None]
    w, h = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
    fits = (w > 0) & (w <= width[:, None]) & (h > 0) & (h <= height[:, None])
    first = fits.argmax(axis=1)[:, None]
    h_w = np.concatenate([np.take_along_axis(h, first, 1), np.take_along_axis(w, first, 1)], 1).astype(np.int64)
    y = np.floor(draws[:, -2] * (height - h_w[:, 0] + 1)).astype(np.int64)
    x = np.floor(draws[:, -1] * (width - h_w[:, 1] + 1)).astype(np.int64)
    found = np.column_stack([y, x, h_w])
    return np.where(fits.any(axis=1)[:, None], found, _fallback_boxes(crop.ratio, height, width))


def _fallback_boxes(ratio: tuple[float, float], height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """RandomResizedCrop's fall-back: the whole image, cropped about its center to the nearest allowed aspect ratio."""
    low, high = ratio
    in_ratio = width / height
    h = np.where(in_ratio < low, np.minimum(np.rint(width / low), height), height).astype(np.int64)
    w = np.where(in_ratio > high, np.minimum(np.rint(height * high), width), width).astype(np.int64)
    h, w = np.maximum(h, 1), np.maximum(w, 1)
    return np.column_stack([(height - h) // 2, (width - w) // 2, h, w])


def resized_short_side(crop: EvalCrop | ShiftCrop, resolution: int) -> int:
    """Short side in pixels to which images are resized before a square of `resolution` pixels is cropped."""
    return math.floor(resolution / crop.crop_pct)


def center_boxes(crop: EvalCrop, sizes: np.ndarray, resolution: int) -> np.ndarray:
    """timm's and torchvision's Resize(short side) then CenterCrop(resolution), as a box in the stored image.

    As in torchvision, the resized long side is rounded down and the crop offset is int(round((side - resolution) / 2)).
    The box covers the same pixels in the stored image, so it is fractional.

    Returns:
        float64 (N, 4): y, x, h, w.
    """
    height, width = np.asarray(sizes, np.int64).T
    resized_h, resized_w = _resized(crop, height, width, resolution)
    y, x = _center(resized_h, resolution), _center(resized_w, resolution)
    return _in_stored(y, x, resolution, height / resized_h, width / resized_w)


def shifted_boxes(
    crop: ShiftCrop, seed: int, epoch: int, index: np.ndarray, sizes: np.ndarray, resolution: int
) -> np.ndarray:
    """The center crop, shifted sideways by whole pixels of the resized image.

    FixRes's code draws a distance from 0 to the center crop's distance from the left edge, then its sign. If the number
    of spare pixels is odd, that crop may leave the image by one pixel; ours stays inside.

    Returns:
        float64 (N, 4): y, x, h, w.
    """
    height, width = np.asarray(sizes, np.int64).T
    resized_h, resized_w = _resized(crop, height, width, resolution)
    y, x = _center(resized_h, resolution), _center(resized_w, resolution)
    draws = uniforms(seed, STREAM_SHIFT, epoch, index, 2)
    distance = np.floor(draws[:, 0] * (x + 1)) * np.where(draws[:, 1] < 0.5, 1, -1)
    x = np.clip(x + distance, 0, resized_w - resolution)
    return _in_stored(y, x, resolution, height / resized_h, width / resized_w)


def _resized(
    crop: EvalCrop | ShiftCrop, height: np.ndarray, width: np.ndarray, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width of the resized images; the long side is rounded down, as torchvision does."""
    short = resized_short_side(crop, resolution)
    portrait = height >= width
    return np.where(portrait, (short * height) // width, short), np.where(portrait, short, (short * width) // height)


def _center(side: np.ndarray, resolution: int) -> np.ndarray:
    return np.rint((side - resolution) / 2.0)


def _in_stored(y: np.ndarray, x: np.ndarray, resolution: int, per_y: np.ndarray, per_x: np.ndarray) -> np.ndarray:
    """Squares of the resized images as boxes in the stored ones."""
    return np.column_stack([y * per_y, x * per_x, resolution * per_y, resolution * per_x])
