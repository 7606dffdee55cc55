"""The filters of antialiased bilinear and bicubic resizing, on Pillow's and torchvision's (antialias=True) grid.

Weights are integers of a constant sum, so that flat areas stay exactly as they are. The decoder
(`roc.decoder.planes`) applies the filter to rows first, then to columns.
"""

from __future__ import annotations

import math

import numpy as np

from fixres.pipelines.runtime.numba_cache import kernel

WEIGHT_ONE = 65535  # weights are uint16 and sum to this: 255 * 65535 * 257 just fits 32 bits
SIGNED_ONE = 1 << 14  # bicubic weights are int16, in the same words, and sum to this; they are in [-0.2, 1.2]


@kernel
def reach_of(step: float, bicubic: bool) -> float:
    """How far from its center an output pixel reaches, in source pixels, of which `step` make one output pixel."""
    return max(step, 1.0) * (2.0 if bicubic else 1.0)


@kernel
def num_taps(length: float, num_out: int, low: int, high: int, bicubic: bool) -> int:
    """Maximum number of source pixels that one output pixel depends on."""
    reach = reach_of(length / num_out, bicubic)
    return max(1, min(math.ceil(2.0 * reach) + 1, high - low))


@kernel
def _cubic(distance: float) -> float:
    """Keys' cubic convolution with a = -0.5 (Catmull-Rom), as in Pillow and in torchvision's antialiased resize."""
    if distance < 1.0:
        return (1.5 * distance - 2.5) * distance * distance + 1.0
    return ((2.5 - 0.5 * distance) * distance - 4.0) * distance + 2.0 if distance < 2.0 else 0.0


@kernel
def fill_taps(
    start: float, length: float, low: int, high: int, flip: bool, bicubic: bool, first: np.ndarray, weights: np.ndarray
) -> None:
    """Computes the source pixels and weights of each output pixel along one axis.

    Kernels take arrays instead of objects: many parameters.

    Args:
        start: where the box begins, in source pixels.
        length: its length, above 0.
        low: first source pixel that may be used. Pixels outside [low, high) are left out and weights renormalized.
        high: one past the last one; above `low`.
        flip: mirror the output.
        bicubic: the cubic filter, else the triangle.
        first: int32 (n,), filled with each output pixel's first source pixel, in [low, high - num_taps].
        weights: uint16 (n, num_taps), filled; each row sums to WEIGHT_ONE. With `bicubic` they are int16 in the same
            words, and sum to SIGNED_ONE.
    """
    num_out, taps = weights.shape
    step = length / num_out
    reach, slope, one = reach_of(step, bicubic), 1.0 / max(step, 1.0), SIGNED_ONE if bicubic else WEIGHT_ONE
    values = np.empty(taps)
    for i in range(num_out):
        center = start + (i + 0.5) * step
        if bicubic:  # a box outside [low, high) would get weights that do not fit their words
            center = min(max(center, float(low)), float(high))
        # Pillow's bounds: every source pixel whose center lies within the support
        begin = min(max(math.floor(center - reach + 0.5), low), high - 1)
        end = max(min(math.floor(center + reach + 0.5), high, begin + taps), begin + 1)
        total = 0.0
        for k in range(end - begin):
            distance = abs(begin + k + 0.5 - center) * slope
            values[k] = _cubic(distance) if bicubic else max(0.0, 1.0 - distance)
            total += values[k]
        if total <= 0.0:  # only for a box outside [low, high): use the nearest pixel
            values[0] = total = 1.0
        position = max(min(begin, high - taps), low)
        o = num_out - 1 - i if flip else i
        first[o] = position
        weights[o, :] = 0
        scale, rest = one / total, one
        for k in range(end - begin):
            weight = math.floor(values[k] * scale + 0.5)
            weights[o, begin - position + k] = weight
            rest -= weight
        # the rounding error is added to the largest weight, next to the center
        nearest = min(max(math.floor(center), begin), end - 1)
        weights[o, nearest - position] += rest
