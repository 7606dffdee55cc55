"""Which part of which image is seen, and mirrored or not: pure functions of (seed, epoch, index).

With `pipelines.sampling.order` this is the only randomness of the data path. Every engine that lets us choose the
crop takes
it from here, so engines can be compared pixel by pixel and a run repeats on any number of workers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from pipelines.sampling.philox import uniforms
from pipelines.spec import Crop, EvalCrop, ShiftCrop, TrainCrop

_ATTEMPTS = 10  # torchvision's RandomResizedCrop.get_params
_STREAM_CROP, _STREAM_FLIP, _STREAM_SHIFT = (
    1,
    2,
    6,
)  # 3 is pipelines.sampling.order's, 4 and 5 are those of the DALI engines


class Boxes(NamedTuple):
    """Crop rectangles in pixels of the stored images.

    Attributes:
        yxhw: for training int64 (N, 4), else float64 (N, 4): y, x, height, width.
        flip: bool (N,), mirror the crop horizontally.
    """

    yxhw: np.ndarray
    flip: np.ndarray


def boxes(crop: Crop, seed: int, epoch: int, index: np.ndarray, sizes: np.ndarray, resolution: int) -> Boxes:
    """The boxes of `crop` for the samples `index`.

    Args:
        crop: training, evaluation or shifted crop.
        seed: the run's seed.
        epoch: current epoch.
        index: integers (N,), positions in the data set.
        sizes: integers (N, 2), height and width of each stored image.
        resolution: output side in pixels (all but training boxes depend on it through rounding).
    """
    index, sizes = np.asarray(index), np.asarray(sizes)
    if isinstance(crop, TrainCrop):
        yxhw = random_resized_crops(crop, seed, epoch, index, sizes)
    elif isinstance(crop, ShiftCrop):
        yxhw = shifted_crops(crop, seed, epoch, index, sizes, resolution)
    else:
        yxhw = centre_crops(crop, sizes, resolution)
    flip = uniforms(seed, _STREAM_FLIP, epoch, index, 1)[:, 0] < crop.hflip
    return Boxes(yxhw, flip)


def random_resized_crops(crop: TrainCrop, seed: int, epoch: int, index: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """torchvision's RandomResizedCrop: ten tries of (area, log aspect), else the largest centered box of allowed ratio.

    The rejection of boxes that do not fit biases the accepted area downwards: 0.432 of a 375 x 500 image on average
    at scale (0.08, 1), not 0.54.

    Returns:
        int64 (N, 4): y, x, h, w.
    """
    height, width = (np.asarray(sizes)[:, k].astype(np.int64) for k in (0, 1))
    draws = uniforms(seed, _STREAM_CROP, epoch, index, 2 * _ATTEMPTS + 2)
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
    return np.where(fits.any(axis=1)[:, None], found, _largest_centred(crop.ratio, height, width))


def _largest_centred(ratio: tuple[float, float], height: np.ndarray, width: np.ndarray) -> np.ndarray:
    """RandomResizedCrop's fall-back: the whole image, cut to the nearest allowed aspect ratio about its center."""
    low, high = ratio
    in_ratio = width / height
    h = np.where(in_ratio < low, np.minimum(np.rint(width / low), height), height).astype(np.int64)
    w = np.where(in_ratio > high, np.minimum(np.rint(height * high), width), width).astype(np.int64)
    h, w = np.maximum(h, 1), np.maximum(w, 1)
    return np.column_stack([(height - h) // 2, (width - w) // 2, h, w])


def resized_short_side(crop: EvalCrop | ShiftCrop, resolution: int) -> int:
    """Short side in pixels that images are resized to before the center of `resolution` pixels is cut out."""
    return math.floor(resolution / crop.crop_pct)


def centre_crops(crop: EvalCrop, sizes: np.ndarray, resolution: int) -> np.ndarray:
    """timm's and torchvision's Resize(short side) then CenterCrop(resolution), as a box in the stored image.

    The resized image has sides round-down(long * short' / short) as torchvision computes them; the crop offset is
    torchvision's int(round((side - resolution) / 2)). The box is what those pixels cover in the stored image, so it is
    fractional.

    Returns:
        float64 (N, 4): y, x, h, w.
    """
    height, width = (np.asarray(sizes)[:, k].astype(np.int64) for k in (0, 1))
    resized_h, resized_w = _resized(crop, height, width, resolution)
    y, x = _centre(resized_h, resolution), _centre(resized_w, resolution)
    return _in_stored(y, x, resolution, height / resized_h, width / resized_w)


def shifted_crops(
    crop: ShiftCrop, seed: int, epoch: int, index: np.ndarray, sizes: np.ndarray, resolution: int
) -> np.ndarray:
    """The center crop, shifted sideways by whole pixels of the resized image.

    As FixRes's code draws it: a distance from 0 to the center crop's distance from the left edge, then its sign. Where
    an odd number of pixels is spare the center is rounded, and the code's crop may leave the image by one pixel; ours
    stays inside.

    Returns:
        float64 (N, 4): y, x, h, w.
    """
    height, width = (np.asarray(sizes)[:, k].astype(np.int64) for k in (0, 1))
    resized_h, resized_w = _resized(crop, height, width, resolution)
    y, x = _centre(resized_h, resolution), _centre(resized_w, resolution)
    draws = uniforms(seed, _STREAM_SHIFT, epoch, np.asarray(index), 2)
    distance = np.floor(draws[:, 0] * (x + 1)) * np.where(draws[:, 1] < 0.5, 1, -1)
    x = np.clip(x + distance, 0, resized_w - resolution)
    return _in_stored(y, x, resolution, height / resized_h, width / resized_w)


def _resized(
    crop: EvalCrop | ShiftCrop, height: np.ndarray, width: np.ndarray, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """Height and width once the short side is as wanted; the long one rounded down, as torchvision does."""
    short = resized_short_side(crop, resolution)
    portrait = height >= width
    return np.where(portrait, (short * height) // width, short), np.where(portrait, short, (short * width) // height)


def _centre(side: np.ndarray, resolution: int) -> np.ndarray:
    return np.rint((side - resolution) / 2.0)


def _in_stored(y: np.ndarray, x: np.ndarray, resolution: int, per_y: np.ndarray, per_x: np.ndarray) -> np.ndarray:
    """Squares of the resized images as boxes in the stored ones."""
    return np.column_stack([y * per_y, x * per_x, resolution * per_y, resolution * per_x])
