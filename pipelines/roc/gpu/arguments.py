"""What the kernels take, and how many blocks and threads run them."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD

UINT8, HALF, BFLOAT16 = range(3)
"""Kinds of output. The last two are normalized."""

# Of the blocks of decode_segments; this many fill the multiprocessors of an H100, of which each runs four at a time.
_ENOUGH_BLOCKS = 4 * 132
_SEGMENTS_AT_ONCE, _STRIP_ROWS = 128, 16


class Batch(ctypes.Structure):
    """`Batch` in kernels/batch.cuh. Pointers are addresses in the memory of the device that runs the kernels."""

    _fields_ = (
        ("bytes", ctypes.c_void_p),
        ("crops", ctypes.c_void_p),
        ("boxes", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("num", ctypes.c_int32),
        ("resolution", ctypes.c_int32),
        ("kind", ctypes.c_int32),
        ("shift", ctypes.c_float * 3),
        ("factor", ctypes.c_float * 3),
    )

    def normalize(self, mean: tuple[float, ...] = IMAGENET_MEAN, std: tuple[float, ...] = IMAGENET_STD) -> None:
        """Sets channel means and standard deviations in [0, 1] of normalized output."""
        for channel in range(3):
            self.shift[channel], self.factor[channel] = 255 * mean[channel], 1 / (255 * std[channel])


class Launch(NamedTuple):
    """A kernel and its grid."""

    kernel: str
    num_blocks: tuple[int, int]
    num_threads: int


def launches(
    num_crops: int, resolution: int, most_segments: int, num_bicubic: int = 0, by_index: bool = False
) -> tuple[Launch, ...]:
    """The kernels of a batch, in order.

    Args:
        num_crops: above 0.
        resolution: output side in pixels.
        most_segments: of any crop.
        num_bicubic: crops that are resized with the bicubic filter.
        by_index: they are crops by a crop index, not of RoC records.
    """
    full = -(-most_segments // _SEGMENTS_AT_ONCE)
    shared = max(1, min(full, -(-_ENOUGH_BLOCKS // num_crops)))
    filters = {"resample": num_bicubic < num_crops, "resample_bicubic": num_bicubic > 0}
    strips = -(-resolution // _STRIP_ROWS)
    return (
        Launch("fill_taps", (num_crops, 1), 128),
        Launch("decode_indexed" if by_index else "decode_segments", (num_crops, shared), _SEGMENTS_AT_ONCE),
        *(Launch(kernel, (num_crops, strips), 256) for kernel, is_used in filters.items() if is_used),
    )
