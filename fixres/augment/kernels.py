"""Compiled kernels for colors and mixing of uint8 batches on a CPU: each pixel is read once and written once.

With torch's operations a batch becomes float, four times its bytes, and passes through memory for every operation. In
small pieces it would stay in the cache, but then torch wakes its threads for each of hundreds of small operations,
which costs more than the computation (benchmarks/LOG.md).
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

_ZERO, _HALF, _MOST = np.float32(0), np.float32(0.5), np.float32(255)


def recolored_on_cpu(images: Tensor, matrices: Tensor, shifts: Tensor) -> Tensor:
    """As `color.recolored`: pixels times matrix plus shift, rounded and clipped to [0, 255].

    Args:
        images: uint8 (B, H, W, 3) on the CPU.
        matrices: float32 (B, 3, 3).
        shifts: float32 (B, 3).
    """
    images = images.contiguous()
    out = torch.empty_like(images)
    pixels, coefficients = images.view(len(images), -1, 3), torch.cat([matrices, shifts[:, :, None]], 2)
    _recolor(pixels.numpy(), coefficients.numpy(), out.view(pixels.shape).numpy())
    return out


def blended_on_cpu(images: Tensor, weight: float) -> Tensor:
    """`weight` times image i plus 1 - `weight` times image B - 1 - i, rounded.

    Args:
        images: uint8 (B, H, W, 3) on the CPU.
        weight: in [0, 1].
    """
    images = images.contiguous()
    out = torch.empty_like(images)
    values = images.view(len(images), -1)
    _blend(values.numpy(), np.float32(1 - weight), out.view(values.shape).numpy())
    return out


@njit(nogil=True, cache=True)
def _recolor(pixels, coefficients, out):
    """pixels uint8 (B, P, 3); coefficients float32 (B, 3, 4), matrix and shift in each row; out uint8 (B, P, 3)."""
    for k in range(len(pixels)):
        a, b, c = coefficients[k]
        for i in range(pixels.shape[1]):
            red, green, blue = np.float32(pixels[k, i, 0]), np.float32(pixels[k, i, 1]), np.float32(pixels[k, i, 2])
            # Adding a half and truncating rounds; negative values become 0 in any case.
            first = a[0] * red + a[1] * green + a[2] * blue + a[3] + _HALF
            second = b[0] * red + b[1] * green + b[2] * blue + b[3] + _HALF
            third = c[0] * red + c[1] * green + c[2] * blue + c[3] + _HALF
            out[k, i, 0] = np.uint8(min(max(first, _ZERO), _MOST))
            out[k, i, 1] = np.uint8(min(max(second, _ZERO), _MOST))
            out[k, i, 2] = np.uint8(min(max(third, _ZERO), _MOST))


@njit(nogil=True, cache=True)
def _blend(values, share, out):
    """values uint8 (B, N); share of the other image; out uint8 (B, N)."""
    for k in range((len(values) + 1) // 2):
        other = len(values) - 1 - k
        for i in range(values.shape[1]):
            one, two = np.float32(values[k, i]), np.float32(values[other, i])
            step = share * (two - one)
            out[k, i] = np.uint8(one + step + _HALF)
            out[other, i] = np.uint8(two - step + _HALF)
