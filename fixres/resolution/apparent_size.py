"""The apparent size of objects in training and in testing (arXiv 1906.06423, section 3.1).

An apparent size is given in pixels of the network's input, for an object as long as the square root of its image's
area; it is proportional for other objects. Sigma is the square root of the crop's area over the image's area. In
training the apparent size is train_res / sigma. In testing it is that of the resized image before the center crop.

The distribution of sigma under RandomResizedCrop is computed, not simulated: scale uniform, log ratio uniform, up to
ten attempts until a box fits the image, else the largest centered box of allowed ratio. Boxes are rounded to pixels
before the attempt, so half a pixel more fits on each side; this matters in small images and is included. The rounding
of boxes that fit is not included; it changes sigma by less than 1e-3 from 32 px on.

In all functions `sizes` are integers (N, 2), height and width of each image in pixels. If they are a random sample,
`num_samples` is the number of images of the whole data set.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fixres.pipelines.spec import EvalCrop, InputError, TrainCrop, check_resolution

_ATTEMPTS = 10  # torchvision's RandomResizedCrop.get_params
_NARROW = 1e-4  # least width of a range: a narrower one would lose digits


class Estimate(NamedTuple):
    """A mean over images."""

    mean: float
    standard_error: float  # 0 if all images were used


def ideal_sigma(scale: tuple[float, float]) -> float:
    """Mean of sigma if every box fits: factor F of the paper's equation 4. `scale` is the range of sigma squared."""
    low, high = np.sqrt(scale)
    # (high^3 - low^3) / (high^2 - low^2) without its 0 / 0 at equal ends.
    return float(2 / 3 * (high * high + high * low + low * low) / (high + low))


def mean_sigma(crop: TrainCrop, sizes: np.ndarray, power: float = 1.0) -> np.ndarray:
    """float64 (N,): mean of sigma ** power over the crops of each image.

    The power is 1 for sigma; 2 for the crop's fraction of the area; -1 for apparent size over train_res. Above -2.
    """
    sizes = _checked(sizes)
    found = _accepted(crop, sizes, 0.0, crop.scale[1])
    moment = _accepted(crop, sizes, power / 2, crop.scale[1])
    missed = (1 - found) ** _ATTEMPTS
    of_found = np.divide(moment, found, out=np.zeros_like(moment), where=found > 0)
    return (1 - missed) * of_found + missed * _fall_back_area(crop, sizes) ** (power / 2)


def sigma_cdf(crop: TrainCrop, sizes: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """float64 (M,): fraction of crops whose sigma is at most each given one; each image has the same weight."""
    sizes = _checked(sizes)
    found = _accepted(crop, sizes, 0.0, crop.scale[1])
    missed, fall_back = (1 - found) ** _ATTEMPTS, _fall_back_area(crop, sizes)
    fractions = np.empty(len(sigma))
    for k, area in enumerate(np.square(np.asarray(sigma, np.float64))):
        below = _accepted(crop, sizes, 0.0, min(area, crop.scale[1])) if area > 0 else np.zeros_like(found)
        of_found = np.divide(below, found, out=np.zeros_like(below), where=found > 0)
        # With a small tolerance: areas are computed from square roots, and the fall-back's area is a single point.
        fractions[k] = np.mean((1 - missed) * of_found + missed * (fall_back <= area * (1 + 1e-9)))
    return fractions


def sizes_in_testing(crop: EvalCrop, sizes: np.ndarray, test_res: int) -> np.ndarray:
    """float64 (N,), pixels: the square root of each resized image's area before the center crop."""
    sizes = _checked(sizes)
    resized_short = np.floor(check_resolution(test_res) / crop.crop_pct)
    resized_long = np.floor(resized_short * sizes.max(axis=1) / sizes.min(axis=1))
    return np.sqrt(resized_short * resized_long)


def apparent_ratio(
    train_crop: TrainCrop,
    eval_crop: EvalCrop,
    sizes: np.ndarray,
    train_res: int,
    test_res: int,
    num_samples: int | None = None,
) -> Estimate:
    """Expected apparent size in testing over that in training (equation 4, on real image sizes)."""
    ratios = sizes_in_testing(eval_crop, sizes, test_res) * mean_sigma(train_crop, sizes) / check_resolution(train_res)
    return _estimate(ratios, num_samples)


def matching_test_res(train_crop: TrainCrop, eval_crop: EvalCrop, sizes: np.ndarray, train_res: int) -> float:
    """The test resolution in pixels, not rounded, at which the expected ratio of apparent sizes is 1."""
    sizes = _checked(sizes)
    # Apparent size in testing over the resized short side, without rounding to pixels.
    elongation = np.sqrt(sizes.max(axis=1) / sizes.min(axis=1))
    return float(check_resolution(train_res) * eval_crop.crop_pct / np.mean(mean_sigma(train_crop, sizes) * elongation))


def _accepted(crop: TrainCrop, sizes: np.ndarray, power: float, high: float) -> np.ndarray:
    """Mean over one attempt of area ** power, counting only boxes that fit and whose area is at most `high`.

    A box of relative area a and log ratio u fits an image if log a <= margin - |u - center|. Over a the integral of
    a ** power is elementary; over u it is one of exponentials, `_above`, from the lowest to the highest log ratio.
    `power` is above -1, `high` at most crop.scale[1].
    """
    low_u, high_u = _widened(*np.log(crop.ratio))
    low, full_high = crop.scale[0], crop.scale[1]
    if full_high - low < _NARROW * full_high:
        low = full_high * (1 - _NARROW)
    height, width = sizes.T
    spare_w, spare_h = np.log1p(0.5 / width), np.log1p(0.5 / height)
    center, margin = np.log(width / height) + spare_w - spare_h, spare_w + spare_h
    exponent, high = power + 1, max(high, low)
    integral = _above(high_u - center, margin, exponent, low, high) - _above(
        low_u - center, margin, exponent, low, high
    )
    return np.clip(integral, 0, None) / (exponent * (full_high - low) * (high_u - low_u))


def _above(v: np.ndarray, margin: np.ndarray, exponent: float, low: float, high: float) -> np.ndarray:
    """Integral of max(0, min(high, exp(margin - |t|)) ** exponent - low ** exponent) over t from 0 to v."""
    capped, empty = margin - np.log(high), margin - np.log(low)  # between these |t| the image's edge limits the area
    sloped = np.clip(np.abs(v), capped, empty)
    flat_part = (high**exponent - low**exponent) * np.minimum(np.abs(v), capped)
    falling = np.exp(exponent * (margin - capped)) - np.exp(exponent * (margin - sloped))
    return np.sign(v) * (flat_part + falling / exponent - low**exponent * (sloped - capped))


def _fall_back_area(crop: TrainCrop, sizes: np.ndarray) -> np.ndarray:
    """Relative area of the largest box of allowed ratio."""
    ratio = sizes[:, 1] / sizes[:, 0]
    return np.minimum(1, np.minimum(ratio / crop.ratio[0], crop.ratio[1] / ratio))


def _widened(low: float, high: float) -> tuple[float, float]:
    return (low, high) if high - low > _NARROW else (low - _NARROW / 2, high + _NARROW / 2)


def _checked(sizes: np.ndarray) -> np.ndarray:
    sizes = np.asarray(sizes, np.float64)
    if sizes.ndim != 2 or sizes.shape[1] != 2 or len(sizes) == 0:
        raise InputError(f"image sizes of shape {sizes.shape}: give height and width of at least one image")
    if not (np.isfinite(sizes).all() and (sizes >= 1).all()):
        raise InputError("image sizes must be at least 1 x 1 pixels; convert the data again")
    return sizes


def _estimate(values: np.ndarray, num_samples: int | None) -> Estimate:
    """Mean and its standard error, with the correction for a sample of a finite data set."""
    num, total = len(values), num_samples or len(values)
    if num >= total:
        return Estimate(float(values.mean()), 0.0)
    if num == 1:
        raise InputError(f"one image of {total} is too small a sample; use more")
    return Estimate(float(values.mean()), float(values.std(ddof=1) * ((1 - num / total) / num) ** 0.5))
