"""Image operations of `tensor_operations`, compiled for CPUs: same arguments, same pixels.

With torch's operations on a CPU the affine transforms alone would cost several times those of Pillow.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

_ZERO, _MOST = np.float32(0), np.float32(255)


def histograms(images: Tensor, chosen: np.ndarray) -> Tensor:
    """See `tensor_operations.histograms`."""
    counts = np.zeros((len(chosen), 3, 256), np.int64)
    _count(images.numpy(), chosen, counts)
    return torch.from_numpy(counts)


def luma_means(images: Tensor, chosen: np.ndarray) -> Tensor:
    """See `tensor_operations.luma_means`."""
    return torch.from_numpy(_luma_means(images.numpy(), chosen))


def look_up(images: Tensor, chosen: np.ndarray, tables: Tensor) -> None:
    """See `tensor_operations.look_up`."""
    _look_up(images.numpy(), chosen, tables.contiguous().numpy())


def blend_with_gray(images: Tensor, chosen: np.ndarray, factors: np.ndarray) -> None:
    """See `tensor_operations.blend_with_gray`."""
    _blend_with_gray(images.numpy(), chosen, factors.astype(np.float32))


def sharpen(images: Tensor, chosen: np.ndarray, factors: np.ndarray) -> None:
    """See `tensor_operations.sharpen`."""
    _sharpen(images.numpy(), chosen, factors.astype(np.float32))


def blur(images: Tensor, chosen: np.ndarray, weights: np.ndarray) -> None:
    """See `tensor_operations.blur`."""
    _blur(images.numpy(), chosen, weights.astype(np.uint32))


def warp(images: Tensor, chosen: np.ndarray, matrices: np.ndarray, modes: np.ndarray, fills: np.ndarray) -> None:
    """See `tensor_operations.warp`."""
    _warp(images.numpy(), chosen, matrices, modes, fills)


@njit(nogil=True, cache=True)
def _count(images, chosen, counts):
    for k in range(len(chosen)):
        values, own = images[chosen[k]].reshape(-1), counts[k]
        for i in range(0, len(values), 3):
            own[0, values[i]] += 1
            own[1, values[i + 1]] += 1
            own[2, values[i + 2]] += 1


@njit(nogil=True, inline="always")
def _luma(red, green, blue):
    total = np.int32(19595) * np.int32(red) + np.int32(38470) * np.int32(green) + np.int32(7471) * np.int32(blue)
    return (total + np.int32(32768)) >> np.int32(16)


@njit(nogil=True, cache=True)
def _luma_means(images, chosen):
    means = np.empty(len(chosen), np.float64)
    for k in range(len(chosen)):
        values, total = images[chosen[k]].reshape(-1), 0
        for i in range(0, len(values), 3):
            total += _luma(values[i], values[i + 1], values[i + 2])
        means[k] = total / (len(values) // 3)
    return means


@njit(nogil=True, cache=True)
def _look_up(images, chosen, tables):
    for k in range(len(chosen)):
        values = images[chosen[k]].reshape(-1)
        red, green, blue = tables[k]
        for i in range(0, len(values), 3):
            values[i] = red[values[i]]
            values[i + 1] = green[values[i + 1]]
            values[i + 2] = blue[values[i + 2]]


@njit(nogil=True, inline="always")
def _blend(zero, one, factor):
    value = np.float32(zero) + factor * np.float32(np.int32(one) - np.int32(zero))
    return np.uint8(min(max(value, _ZERO), _MOST))


@njit(nogil=True, cache=True)
def _blend_with_gray(images, chosen, factors):
    for k in range(len(chosen)):
        values = images[chosen[k]].reshape(-1)
        for i in range(0, len(values), 3):
            gray = _luma(values[i], values[i + 1], values[i + 2])
            values[i] = _blend(gray, values[i], factors[k])
            values[i + 1] = _blend(gray, values[i + 1], factors[k])
            values[i + 2] = _blend(gray, values[i + 2], factors[k])


@njit(nogil=True, cache=True)
def _sharpen(images, chosen, factors):
    """The border keeps its pixels, as in Pillow."""
    height, length = images.shape[1], images.shape[2] * 3
    total, before = np.empty(length, np.int32), np.empty((height, length), np.uint8)
    for k in range(len(chosen)):
        rows = images[chosen[k]].reshape(height, length)
        before[:] = rows
        for y in range(1, height - 1):
            for i in range(length):
                total[i] = np.int32(before[y - 1, i]) + np.int32(before[y, i]) + np.int32(before[y + 1, i])
            # As slices: LLVM makes vector code only if no index may be negative.
            middle, right, own, target = total[3:], total[6:], before[y, 3:], rows[y, 3:]
            for i in range(length - 6):
                whole = total[i] + middle[i] + right[i] + np.int32(4) * np.int32(own[i])
                smooth = np.int32(np.uint32(2 * whole + 13) // np.uint32(26))
                target[i] = _blend(smooth, own[i], factors[k])


@njit(nogil=True, cache=True)
def _blur(images, chosen, weights):
    height, length = images.shape[1], images.shape[2] * 3
    other, total = np.empty((height, length), np.uint8), np.empty(length, np.uint32)
    for k in range(len(chosen)):
        one = images[chosen[k]].reshape(height, length)
        for axis in range(2):
            for _ in range(3):
                if axis == 0:
                    _blur_rows(one, weights[k], total, other)
                else:
                    _blur_columns(one, weights[k], total, other)
                one, other = other, one  # after six filters the result is in the batch again


@njit(nogil=True, cache=True)
def _blur_rows(source, weights, total, out):
    length = source.shape[1]
    for y in range(len(source)):
        row = source[y]
        for i in range(length):
            total[i] = weights[0] * np.uint32(row[i]) + np.uint32(1 << 23)
        for d in range(1, len(weights)):
            reach = min(3 * d, length)
            for i in range(reach):
                total[i] += weights[d] * np.uint32(row[i % 3])
                total[length - 1 - i] += weights[d] * np.uint32(row[length - 1 - i % 3])
            # As slices: LLVM makes vector code only if no index may be negative.
            right, following = total[reach:], row[reach:]
            for i in range(length - reach):
                right[i] += weights[d] * np.uint32(row[i])
                total[i] += weights[d] * np.uint32(following[i])
        for i in range(length):
            out[y, i] = np.uint8(total[i] >> np.uint32(24))


@njit(nogil=True, cache=True)
def _blur_columns(source, weights, total, out):
    height, length = source.shape
    for y in range(height):
        for i in range(length):
            total[i] = weights[0] * np.uint32(source[y, i]) + np.uint32(1 << 23)
        for d in range(1, len(weights)):
            above, below = source[max(y - d, 0)], source[min(y + d, height - 1)]
            for i in range(length):
                total[i] += weights[d] * (np.uint32(above[i]) + np.uint32(below[i]))
        for i in range(length):
            out[y, i] = np.uint8(total[i] >> np.uint32(24))


@njit(nogil=True, cache=True)
def _warp(images, chosen, matrices, modes, fills):
    before = np.empty(images.shape[1:], np.uint8)
    for k in range(len(chosen)):
        out = images[chosen[k]]
        before[:] = out
        if modes[k] == 0:
            _warp_nearest(before, matrices[k], fills[k], out)
        else:
            _warp_smoothly(before, matrices[k], modes[k] == 2, fills[k], out)


@njit(nogil=True, cache=True)
def _warp_nearest(image, matrix, fill, out):
    """Pillow counts in 2^-16 pixels here."""
    height, width = image.shape[:2]
    a, b, _, d, e, _ = np.floor(matrix * 65536 + 0.5).astype(np.int64)
    start_x = np.int64(np.floor((matrix[2] + matrix[0] * 0.5 + matrix[1] * 0.5) * 65536 + 0.5))
    start_y = np.int64(np.floor((matrix[5] + matrix[3] * 0.5 + matrix[4] * 0.5) * 65536 + 0.5))
    for y in range(height):
        for x in range(width):
            column, row = (start_x + a * x + b * y) >> 16, (start_y + d * x + e * y) >> 16
            inside = 0 <= column < width and 0 <= row < height
            for c in range(3):
                out[y, x, c] = image[row, column, c] if inside else fill[c]


@njit(nogil=True, inline="always")
def _set_weights(rest, cubic, weights):
    """Of four neighbors; the two outer ones are 0 between whole pixels if not `cubic` (Pillow's cubic, a = -1)."""
    if cubic:
        weights[0] = rest * (rest * (2 - rest) - 1)
        weights[1] = 1 + rest * rest * (rest - 2)
        weights[2] = rest * (1 + rest * (1 - rest))
        weights[3] = rest * rest * (rest - 1)
    else:
        weights[1], weights[2] = 1 - rest, rest


@njit(nogil=True, cache=True)
def _warp_smoothly(image, matrix, cubic, fill, out):
    height, width = image.shape[:2]
    values = image.reshape(-1)
    columns, across, down = np.empty(4, np.int64), np.zeros(4, np.float32), np.zeros(4, np.float32)
    for y in range(height):
        for x in range(width):
            at_x = matrix[0] * (x + 0.5) + matrix[1] * (y + 0.5) + matrix[2]
            at_y = matrix[3] * (x + 0.5) + matrix[4] * (y + 0.5) + matrix[5]
            if not (0 <= at_x < width and 0 <= at_y < height):
                out[y, x, 0], out[y, x, 1], out[y, x, 2] = fill[0], fill[1], fill[2]
                continue
            column, row = np.int64(np.floor(at_x - 0.5)), np.int64(np.floor(at_y - 0.5))
            rest_x, rest_y = np.float32(at_x - 0.5 - column), np.float32(at_y - 0.5 - row)
            _set_weights(rest_x, cubic, across)
            _set_weights(rest_y, cubic, down)
            for j in range(4):
                columns[j] = 3 * min(max(column + j - 1, 0), width - 1)
            # Equal values have weights with sum 1 to 1e-6; what is cut off must not take them a level lower.
            red = green = blue = np.float32(0.001)
            for i in range(4):
                if down[i] == 0:  # of shears and translations along x, all but one
                    continue
                start = 3 * width * min(max(row + i - 1, 0), height - 1)
                for j in range(4):
                    if across[j] != 0:
                        weight, place = down[i] * across[j], start + columns[j]
                        red += weight * np.float32(values[place])
                        green += weight * np.float32(values[place + 1])
                        blue += weight * np.float32(values[place + 2])
            out[y, x, 0] = np.uint8(min(max(red, _ZERO), _MOST))
            out[y, x, 1] = np.uint8(min(max(green, _ZERO), _MOST))
            out[y, x, 2] = np.uint8(min(max(blue, _ZERO), _MOST))
