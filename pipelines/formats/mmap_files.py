"""Memory-maps files one behind the other as a single read-only array, without keeping a file descriptor for each.

The kernels take one array for a data set, which may have 1024 parts, and 1024 is the usual limit of descriptors.
numpy.memmap keeps one per file, and Python's mmap cannot drop it before version 3.13 (`trackfd`); hence ctypes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fixres.pipelines.spec import InputError

_MAP_FIXED = 16  # Linux, all architectures but MIPS and Alpha
_FAILED = ctypes.c_void_p(-1).value


def map_file(path: Path) -> memoryview:
    """A file as read-only memory; see `map_files`."""
    return map_files([path])[0]


def map_files(paths: Sequence[Path]) -> tuple[memoryview, list[int]]:
    """Maps files in one piece of memory. It is unmapped with its last reference.

    Returns:
        The memory, and the position in it at which each file begins, a multiple of the page size. Bytes between files
        are zeros.

    Raises:
        ValueError: a file is empty.
        OSError: a file cannot be opened or mapped.
    """
    sizes = [os.stat(path).st_size for path in paths]
    if not all(sizes):
        raise ValueError(f"{paths[sizes.index(0)]} is empty")
    lengths = [-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in sizes]
    starts = [0, *np.cumsum(lengths[:-1]).tolist()]
    # Reserves the addresses. The files' maps replace its pages, and are freed with it.
    memory = mmap.mmap(-1, starts[-1] + sizes[-1], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    base = np.frombuffer(memory, np.uint8).ctypes.data
    for path, start, size in zip(paths, starts, sizes, strict=True):
        _map_at(base + start, path, size)
    return memoryview(memory), starts


def _map_at(address: int, path: Path, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size != size:
            raise InputError(f"{path} was replaced while it was opened; try again")
        flags = mmap.MAP_SHARED | _MAP_FIXED
        if libc.mmap(address, size, mmap.PROT_READ, flags, file.fileno(), 0) == _FAILED:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
