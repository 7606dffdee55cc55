"""The triangle filter of antialiased bilinear resizing, on Pillow's and torchvision's (antialias=True) grid.

Weights are integers that sum to 65535, so that weighted sums are exact. The decoder (`roc.decoder.planes`)
applies the filter to rows first, then to columns.
"""

from __future__ import annotations

import math

import numpy as np

from fixres.pipelines.runtime.numba_cache import kernel

WEIGHT_ONE = 65535  # weights are uint16 and sum to this: 255 * 65535 * 257 just fits 32 bits


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
