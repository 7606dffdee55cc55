"""Image operations on uint8 NHWC batches with torch's operations, for GPUs: each image has its own parameters.

All take a batch (B, H, W, 3) and the positions of the images that they process or change, int64 (N,) on the host.

The arithmetic is Pillow's, so that images equal those of timm's and torchvision's transforms. Nothing here waits for
the GPU: shapes and groups are known on the host. `operation_kernels` has the same functions compiled for CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor

NEAREST, BILINEAR, BICUBIC = 0, 1, 2


def on_device(array: np.ndarray, device: torch.device) -> Tensor:
    """A copy of `array` on `device`."""
    tensor = torch.from_numpy(array)
    if device.type == "cuda":  # a copy from pageable memory would wait for the earlier steps
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def _in_place(function: Callable[..., Tensor]) -> Callable[..., None]:
    """From a function that returns changed images, one that changes the chosen ones of a batch."""

    @wraps(function)
    def change(images: Tensor, chosen: np.ndarray, *parameters: Any) -> None:
        places = on_device(chosen, images.device)
        images.index_copy_(0, places, function(images.index_select(0, places), *parameters))

    return change


def histograms(images: Tensor, chosen: np.ndarray) -> Tensor:
    """int64 (N, 3, 256): how often each channel has each value."""
    values = images.index_select(0, on_device(chosen, images.device)).flatten(1, 2).transpose(1, 2).long()
    counts = torch.zeros(len(chosen), 3, 256, dtype=torch.int64, device=images.device)
    return counts.scatter_add_(2, values, torch.ones_like(values))


def luma_means(images: Tensor, chosen: np.ndarray) -> Tensor:
    """float64 (N,): mean of the gray image, which has whole values as in Pillow."""
    return _luma(images.index_select(0, on_device(chosen, images.device))).double().mean((1, 2))


@_in_place
def look_up(images: Tensor, tables: Tensor) -> Tensor:
    """Replaces each value by that in its image's and channel's table, uint8 (N, 3, 256)."""
    values = images.flatten(1, 2).transpose(1, 2).long()
    return tables.gather(2, values).transpose(1, 2).reshape(images.shape)


@_in_place
def blend_with_gray(images: Tensor, factors: np.ndarray) -> Tensor:
    """Saturation: 0 gives the gray image, 1 the image itself. `factors`: float64 (N,)."""
    return _blend(_luma(images).unsqueeze(-1), images, factors)


@_in_place
def sharpen(images: Tensor, factors: np.ndarray) -> Tensor:
    """Sharpness: 0 gives the image under Pillow's filter SMOOTH, 1 the image itself. `factors`: float64 (N,)."""
    values, smooth = images.int(), images.int()
    height, width = images.shape[1:3]
    if height > 2 and width > 2:
        total = 4 * values[:, 1:-1, 1:-1]
        for y in range(3):
            for x in range(3):
                total = total + values[:, y : height - 2 + y, x : width - 2 + x]
        smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26
    return _blend(smooth, images, factors)


@_in_place
def blur(images: Tensor, weights: np.ndarray) -> Tensor:
    """Three box filters along x, then three along y, each rounded to whole values, with replicated borders.

    Args:
        weights: int64 (N, K), of the pixel and of those 1, 2, ... away, in units of 2^-24.
    """
    values, shares = images.long(), on_device(weights, images.device)[:, :, None, None, None]
    for axis in (2, 1):
        places = torch.arange(images.shape[axis], device=images.device)
        for _ in range(3):
            total = shares[:, 0] * values + (1 << 23)
            for distance in range(1, weights.shape[1]):
                before = values.index_select(axis, (places - distance).clamp_min(0))
                after = values.index_select(axis, (places + distance).clamp_max(len(places) - 1))
                total += shares[:, distance] * (before + after)
            values = total >> 24
    return values.to(torch.uint8)


@_in_place
def warp(images: Tensor, matrices: np.ndarray, modes: np.ndarray, fills: np.ndarray) -> Tensor:
    """Affine transforms, as Pillow's `Image.transform(size, AFFINE, matrix, resample, fillcolor)`.

    Args:
        matrices: float64 (N, 6); output (x, y) shows input (a x + b y + c, d x + e y + f).
        modes: int64 (N,), NEAREST, BILINEAR or BICUBIC.
        fills: uint8 (N, 3), RGB of what lies outside.
    """
    device, (height, width) = images.device, images.shape[1:3]
    own, ways = on_device(matrices, device), on_device(modes, device)[:, None, None]
    inside, columns, across = _positions(own[:, :3], ways, height, width, width)
    inside_y, rows, down = _positions(own[:, 3:], ways, height, width, height)
    flat, cubic, lines = images.flatten(1, 2), (ways == BICUBIC).unsqueeze(-1).float(), []
    for dy in range(-1, 3):
        row = (rows + dy).clamp(0, height - 1) * width
        places = [(row + (columns + dx).clamp(0, width - 1)).flatten(1) for dx in range(-1, 3)]
        taps = [flat.gather(1, place[..., None].expand(-1, -1, 3)).view(images.shape).float() for place in places]
        lines.append(_interpolate(taps, across, cubic))
    values = _interpolate(lines, down, cubic).clamp(0, 255).to(torch.uint8)
    outside = on_device(fills, device)[:, None, None]
    return torch.where((inside & inside_y).unsqueeze(-1), values, outside)


def _positions(row: Tensor, ways: Tensor, height: int, width: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """For one coordinate (N, H, W): is it inside, the pixel at or before it, and the rest (N, H, W, 1) in [0, 1)."""
    x = torch.arange(width, device=row.device)
    y = torch.arange(height, device=row.device)[:, None]
    a, b, c = row.T[:, :, None, None]
    exact = a * (x + 0.5) + b * (y + 0.5) + c
    start, right, below = (torch.floor(value * 65536 + 0.5).long() for value in (c + a * 0.5 + b * 0.5, a, b))
    nearest = (start + right * x + below * y) >> 16  # Pillow counts in 2^-16 pixels here
    pixel = torch.where(ways == NEAREST, nearest, torch.floor(exact - 0.5).long())
    rest = torch.where(ways == NEAREST, 0.0, exact - 0.5 - pixel).float().unsqueeze(-1)
    place = torch.where(ways == NEAREST, nearest.double(), exact)
    return (place >= 0) & (place < size), pixel, rest


def _interpolate(taps: list[Tensor], rest: Tensor, cubic: Tensor) -> Tensor:
    """Between the two middle ones of four values; with `cubic` 1 the cubic of Pillow's transforms, with 0 a line.

    Horner's form returns equal values exactly; weights would fall below them and be truncated one level lower.
    """
    v1, v2, v3, v4 = taps
    line = v3 - v2
    first = line + cubic * (v2 - v1)  # v3 - v1
    second, third = 2 * (v1 - v2) + v3 - v4, v2 - v1 + v4 - v3
    return v2 + rest * (first + cubic * rest * (second + rest * third))


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images.int().unbind(-1)
    return (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16


def _blend(zero: Tensor, images: Tensor, factors: np.ndarray) -> Tensor:
    shares = on_device(factors.astype(np.float32), images.device)[:, None, None, None]
    values = zero.float() + shares * (images.int() - zero).float()
    return values.clamp_(0, 255).to(torch.uint8)
