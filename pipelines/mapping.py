"""Several files as one stretch of memory."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.spec import InputError

_PROT_READ, _MAP_SHARED, _MAP_FIXED = 1, 1, 16  # Linux, all architectures but MIPS and Alpha
_FAILED = ctypes.c_void_p(-1).value


def map_files(paths: Sequence[Path]) -> tuple[mmap.mmap, list[int]]:
    """Maps files read-only, one behind the other, each from a page's beginning.

    Kernels take one array for a data set; so it may be one for many files as well.

    Args:
        paths: files that are not empty.

    Returns:
        The map, and where in it each file begins. Bytes between files read as zeros.
    """
    sizes = [os.stat(path).st_size for path in paths]
    lengths = [-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in sizes]
    starts = [0, *np.cumsum(lengths).tolist()]
    # Address space alone; each file then takes the place of a part of it, and all goes when the map does.
    whole = mmap.mmap(-1, starts[-1], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    base = np.frombuffer(whole, np.uint8).ctypes.data
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    for path, start, size in zip(paths, starts, sizes, strict=False):
        with open(path, "rb") as file:
            if libc.mmap(base + start, size, _PROT_READ, _MAP_SHARED | _MAP_FIXED, file.fileno(), 0) == _FAILED:
                raise InputError(
                    f"{path} cannot be mapped ({os.strerror(ctypes.get_errno())}); merge the parts instead"
                )
    return whole, starts[:-1]
