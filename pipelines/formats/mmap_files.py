"""Files as memory, without a descriptor for each: Python's own maps keep one, and 1024 is the usual limit."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipelines.spec import InputError

_PROT_READ, _MAP_SHARED, _MAP_FIXED = 1, 1, 16  # Linux, all architectures but MIPS and Alpha
_FAILED = ctypes.c_void_p(-1).value


def map_file(path: Path) -> memoryview:
    """A file as read-only memory, which is given back with its last reference.

    Raises:
        ValueError: the file is empty.
        OSError: it cannot be opened or mapped.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise ValueError(f"{path} is empty")
        room = _room(size)
        _put(file, path, room, 0, size)
    return memoryview(room)


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
    room = _room(starts[-1])
    for path, start, size in zip(paths, starts, sizes, strict=False):
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise InputError(f"{path} was replaced while it was opened; try again")
            try:
                _put(file, path, room, start, size)
            except OSError as error:
                raise InputError(f"{path} cannot be mapped ({error.strerror}); merge the parts instead") from None
    return room, starts[:-1]


def _room(size: int) -> mmap.mmap:
    """Address space alone; files then take the place of parts of it, and all goes when it does."""
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)


def _put(file: BinaryIO, path: Path, room: mmap.mmap, start: int, size: int) -> None:
    base = np.frombuffer(room, np.uint8).ctypes.data
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_int64]
    if libc.mmap(base + start, size, _PROT_READ, _MAP_SHARED | _MAP_FIXED, file.fileno(), 0) == _FAILED:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
