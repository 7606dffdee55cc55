"""The reference for resampled crops: the weights of `fixres.pipelines.images.resampling` as matrices."""

from __future__ import annotations

import math

import numpy as np

from fixres.pipelines.images.resampling import fill_taps, num_taps

Box = tuple[float, float, float, float]


def resize_box(
    image: np.ndarray,
    box: Box,
    size: tuple[int, int],
    flip: bool = False,
    inside: bool = True,
    bicubic: bool = False,
) -> np.ndarray:
    """Resizes the box y, x, height, width of an image, uint8 HWC or HW, to `size`, height and width.

    The arithmetic is exact up to one rounding to 8.8 fixed point between the passes over rows and columns. Pillow
    rounds to integers there, so results differ from Pillow's by at most 1 gray level.

    Args:
        flip: mirror left and right.
        inside: True: pixels outside the box have no influence, as in torchvision's crop followed by resize. False: the
            filter reaches beyond the box, up to the border of the image, as in Pillow's `resize(box=)`.
        bicubic: the cubic filter instead of the triangle; sums are clipped, as in Pillow.
    """
    y, x, h, w = box
    rows = _weights(y, h, image.shape[0], size[0], False, inside, bicubic)
    columns = _weights(x, w, image.shape[1], size[1], flip, inside, bicubic)
    if bicubic:
        summed = np.clip((np.tensordot(rows, image, (1, 0)) + 32) >> 6, 0, 255 << 8)
        resized = np.clip((np.tensordot(columns, summed, (1, 1)) + (1 << 21)) >> 22, 0, 255)
        return np.ascontiguousarray(resized.swapaxes(0, 1), np.uint8)
    summed = (np.tensordot(rows, image, (1, 0)) + 128) >> 8
    resized = (np.tensordot(columns, summed, (1, 1)) + (1 << 23)) >> 24
    return np.ascontiguousarray(resized.swapaxes(0, 1), np.uint8)


def _weights(
    start: float, length: float, extent: int, num_out: int, flip: bool, inside: bool, bicubic: bool
) -> np.ndarray:
    """int64 (num_out, extent): the weight of each pixel of an axis in each output pixel."""
    low, high = (math.floor(start), min(math.ceil(start + length), extent)) if inside else (0, extent)
    first = np.empty(num_out, np.int32)
    taps = np.empty((num_out, num_taps(length, num_out, low, high, bicubic)), np.uint16)
    fill_taps(start, length, low, high, flip, bicubic, first, taps)
    weights = np.zeros((num_out, extent), np.int64)
    values = taps.view(np.int16 if bicubic else np.uint16).astype(np.int64)
    np.put_along_axis(weights, first[:, None] + np.arange(taps.shape[1]), values, axis=1)
    return weights
