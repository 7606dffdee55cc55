"""Halves the sides of an image with the Lanczos filter, for the coarser levels of RoC records."""

from __future__ import annotations

import numpy as np

from fixres.pipelines.runtime.numba_cache import kernel

_TAPS = 12
_DISTANCES = (np.arange(_TAPS) - (_TAPS - 1) / 2) / 2  # of source pixels from the output pixel, in output pixels
_LANCZOS = np.sinc(_DISTANCES) * np.sinc(_DISTANCES / 3)
_WEIGHTS = (_LANCZOS / _LANCZOS.sum()).astype(np.float32)  # symmetric
_BEFORE = _TAPS // 2 - 1  # taps before the first of the two pixels that an output pixel covers


@kernel
def halve(image: np.ndarray) -> np.ndarray:
    """Halves the sides, rounded up. Output pixel i covers pixels 2 i and 2 i + 1. Border pixels are repeated.

    At a factor of exactly two, the twelve weights are the same for every pixel: 0.6 ms for 500 x 375 pixels, against
    2.4 ms for Pillow's general filter.

    Why Lanczos: on 120 photographs, 128 px crops resampled from the half level (encoded and decoded) have a PSNR of
    38.0 dB against those from the full level; 37.8 with bicubic, 37.0 Hamming, 36.9 box, 36.3 triangle.

    Args:
        image: uint8 (H, W, 3), contiguous.

    Returns:
        uint8 (ceil(H / 2), ceil(W / 2), 3).
    """
    height, width = image.shape[0], image.shape[1]
    out = np.empty(((height + 1) // 2, (width + 1) // 2, 3), np.uint8)
    rows, row = image.reshape(height, 3 * width), np.empty(3 * (width + _TAPS), np.float32)
    inner = row[3 * _BEFORE : 3 * (_BEFORE + width)]
    for y in range(out.shape[0]):
        _sum_rows(rows, 2 * y - _BEFORE, inner)
        for i in range(3 * _BEFORE):
            row[i] = inner[i % 3]
        for i in range(3 * (_BEFORE + width), row.size):
            row[i] = inner[inner.size - 3 + i % 3]
        _sum_columns(row, out[y])
    return out


@kernel
def _sum_rows(rows: np.ndarray, first: int, total: np.ndarray) -> None:
    """total[i] = weighted sum of pixels i of the rows from `first` on; rows of equal weight are added first."""
    last = rows.shape[0] - 1
    total[:] = 0
    for k in range(_TAPS // 2):
        above = rows[min(max(first + k, 0), last)]
        below = rows[min(max(first + _TAPS - 1 - k, 0), last)]
        for i in range(total.size):
            total[i] += np.float32(np.int32(above[i]) + np.int32(below[i])) * _WEIGHTS[k]


@kernel
def _sum_columns(row: np.ndarray, out: np.ndarray) -> None:
    """out[x] = the weighted sum of the pixels of `row` from 2 x on, rounded and clipped to [0, 255]."""
    for x in range(out.shape[0]):
        for c in range(3):
            total = np.float32(0.5)  # rounds
            for k in range(_TAPS // 2):
                total += (row[6 * x + 3 * k + c] + row[6 * x + 3 * (_TAPS - 1 - k) + c]) * _WEIGHTS[k]
            out[x, c] = np.uint8(np.int32(min(max(total, np.float32(0)), np.float32(255))))
