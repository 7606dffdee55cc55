"""Antialiased bilinear resize of a box of a uint8 image, on Pillow's and torchvision's (antialias=True) grid.

The triangle filter is separable. Rows are summed first: neighboring columns are adjacent in memory, so the compiler
turns that loop into SIMD code. Then the intermediate image is transposed, so that the pass over columns is the same
loop. Integer arithmetic is exact up to one rounding to 8.8 fixed point between the passes. Pillow rounds to integers
there, so results differ from Pillow's by at most 1 gray level.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.runtime.numba_cache import kernel
from pipelines.spec import InputError

WEIGHT_ONE = 65535  # weights are uint16 and sum to this: 255 * 65535 * 257 just fits 32 bits
_MAX_SIDE = 65535  # largest side of a JPEG image


@kernel
def num_taps(length: float, num_out: int, low: int, high: int) -> int:
    """Maximum number of source pixels that one output pixel depends on."""
    support = max(length / num_out, 1.0)
    return max(1, min(math.ceil(2.0 * support) + 1, high - low))


@kernel
def fill_taps(
    start: float, length: float, low: int, high: int, flip: bool, first: np.ndarray, weights: np.ndarray
) -> None:
    """Computes the source pixels and weights of each output pixel along one axis.

    Args:
        start: where the box begins, in source pixels.
        length: its length, above 0.
        low: first source pixel that may be used. Pixels outside [low, high) are left out and weights renormalized.
        high: one past the last one; above `low`.
        flip: mirror the output.
        first: int32 (n,), filled with each output pixel's first source pixel, in [low, high - num_taps].
        weights: uint16 (n, num_taps), filled; each row sums to WEIGHT_ONE.
    """
    num_out, taps = weights.shape
    step = length / num_out
    support = max(step, 1.0)
    slope = 1.0 / support
    triangle = np.empty(taps)
    for i in range(num_out):
        center = start + (i + 0.5) * step
        # Pillow's bounds: every source pixel whose center lies within the support
        begin = min(max(math.floor(center - support + 0.5), low), high - 1)
        end = max(min(math.floor(center + support + 0.5), high, begin + taps), begin + 1)
        total = 0.0
        for k in range(end - begin):
            triangle[k] = max(0.0, 1.0 - abs(begin + k + 0.5 - center) * slope)
            total += triangle[k]
        if total <= 0.0:  # only for a box outside [low, high): use the nearest pixel
            triangle[0] = total = 1.0
        position = max(min(begin, high - taps), low)
        o = num_out - 1 - i if flip else i
        first[o] = position
        weights[o, :] = 0
        scale, rest = WEIGHT_ONE / total, WEIGHT_ONE
        for k in range(end - begin):
            weight = int(triangle[k] * scale + 0.5)
            weights[o, begin - position + k] = weight
            rest -= weight
        # the rounding error is added to the largest weight, next to the center
        nearest = min(max(math.floor(center), begin), end - 1)
        weights[o, nearest - position] += rest


@kernel
def sum_rows(rows: np.ndarray, column: int, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """The pass over rows: out[i, x] = sum over k of weights[i, k] * rows[first[i] + k, column + x], as 8.8 fixed point.

    Args:
        rows: uint8 (H, N).
        column: first column used.
        first: int32 (n,).
        weights: uint16 (n, taps).
        out: uint16 (n, M), column + M <= N.
    """
    num_out, num_columns = out.shape
    total = np.empty(num_columns, np.uint32)
    for i in range(num_out):
        total[:] = 128
        for k in range(weights.shape[1]):
            weight = np.uint32(weights[i, k])
            row = rows[first[i] + k, column : column + num_columns]
            for x in range(num_columns):
                total[x] += np.uint32(row[x]) * weight
        target = out[i]
        for x in range(num_columns):
            target[x] = total[x] >> 8


@kernel
def sum_columns(columns: np.ndarray, low: int, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """The pass over columns, of a transposed image: out[y, i, c] from columns[first[i] + k - low, c, y].

    Args:
        columns: uint16 (W, C, H), 8.8 fixed point.
        low: number of the source column columns[0].
        first: int32 (n,).
        weights: uint16 (n, taps).
        out: uint8 (H, n, C).
    """
    _, channels, height = columns.shape
    total = np.empty((channels, height), np.uint32)
    for i in range(weights.shape[0]):
        total[:] = 1 << 23
        for k in range(weights.shape[1]):
            weight = np.uint32(weights[i, k])
            for c in range(channels):
                source, target = columns[first[i] + k - low, c], total[c]
                for y in range(height):
                    target[y] += np.uint32(source[y]) * weight
        for c in range(channels):
            for y in range(height):
                out[y, i, c] = total[c, y] >> 24


@kernel
def _transpose(image: np.ndarray, out: np.ndarray) -> None:
    """out[x, c, y] = image[y, x * channels + c]."""
    width, channels, height = out.shape
    for y in range(height):
        row = image[y]
        for x in range(width):
            for c in range(channels):
                out[x, c, y] = row[x * channels + c]


@kernel
def resize_box_into(
    image: np.ndarray, y: float, x: float, h: float, w: float, flip: bool, inside: bool, out: np.ndarray
) -> None:
    """`resize_box` for callers inside numba. Nothing is checked; the box must lie in the image.

    Args:
        image: uint8 (H, W, C), contiguous.
        y, x, h, w: the box in source pixels.
        flip: mirror left and right.
        inside: use no pixel outside the box.
        out: uint8 (out_h, out_w, C).
    """
    height, width, channels = image.shape
    low_y, high_y, low_x, high_x = 0, height, 0, width
    if inside:
        low_y, high_y = math.floor(y), min(math.ceil(y + h), height)
        low_x, high_x = math.floor(x), min(math.ceil(x + w), width)
    out_h, out_w = out.shape[:2]
    first_y, weights_y = np.empty(out_h, np.int32), np.empty((out_h, num_taps(h, out_h, low_y, high_y)), np.uint16)
    first_x, weights_x = np.empty(out_w, np.int32), np.empty((out_w, num_taps(w, out_w, low_x, high_x)), np.uint16)
    fill_taps(y, h, low_y, high_y, False, first_y, weights_y)
    fill_taps(x, w, low_x, high_x, flip, first_x, weights_x)
    used_low, used_high = first_x.min(), first_x.max() + weights_x.shape[1]
    summed = np.empty((out_h, (used_high - used_low) * channels), np.uint16)
    sum_rows(image.reshape(height, width * channels), used_low * channels, first_y, weights_y, summed)
    transposed = np.empty((used_high - used_low, channels, out_h), np.uint16)
    _transpose(summed, transposed)
    sum_columns(transposed, used_low, first_x, weights_x, out)


def resize_box(
    image: np.ndarray,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    flip: bool = False,
    inside: bool = True,
) -> np.ndarray:
    """Resizes a box of an image with the triangle filter.

    Args:
        image: uint8 (H, W, C) or a plane (H, W), in [0, 255].
        box: y, x, height, width in pixels of the image, integers or fractions, inside the image.
        size: output height and width in pixels.
        flip: mirror left and right.
        inside: True: pixels outside the box have no influence, as in torchvision's crop followed by resize. False: the
            filter reaches beyond the box, up to the border of the image, as in Pillow's `resize(box=)`.

    Returns:
        uint8 (size[0], size[1], C), or (size[0], size[1]) for a plane.

    Raises:
        InputError: the box is not inside the image, or the image or size is of the wrong kind.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise InputError(f"image is {image.dtype} with shape {image.shape}; resize_box takes uint8 HWC or HW")
    y, x, h, w = _checked_box(box, *image.shape[:2])
    if min(size) < 1 or max(size) > _MAX_SIDE:
        raise InputError(f"size={size} must be 1 to {_MAX_SIDE} pixels a side")
    channels = image.shape[2] if image.ndim == 3 else 1
    out = np.empty((*size, channels), np.uint8)
    source = np.ascontiguousarray(image).reshape(*image.shape[:2], channels)
    resize_box_into(source, y, x, h, w, flip, inside, out)
    return out if image.ndim == 3 else out[..., 0]


def _checked_box(box: tuple[float, float, float, float], height: int, width: int) -> tuple[float, float, float, float]:
    """The box as floats. Rounding errors of up to a millionth of a pixel beyond the border are removed."""
    y, x, h, w = (float(v) for v in box)
    slack = 1e-6
    # a NaN fails these comparisons
    fits = y >= -slack and x >= -slack and y + h <= height + slack and x + w <= width + slack and h > 0 and w > 0
    if not fits or max(height, width) > _MAX_SIDE:
        raise InputError(f"box y={y:g} x={x:g} h={h:g} w={w:g} is not inside the image of {height} x {width} pixels")
    y, x = max(y, 0.0), max(x, 0.0)
    return y, x, min(h, height - y), min(w, width - x)
