"""Drops files from the page cache before a measurement, and measures the share of them that is in it."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

MAX_RESIDENT_SHARE = 0.05
"""Largest share of resident pages at which the cache counts as cold."""


def files_below(path: Path) -> list[Path]:
    """The file itself, or all files below a folder, each inode once."""
    if path.is_file():
        return [path]
    found = {file.stat().st_ino: file for file in sorted(path.rglob("*")) if file.is_file()}
    return list(found.values())


def evict(files: Iterable[Path]) -> None:
    """Asks the kernel to drop the files' pages; this is only a request, so check `resident_share` afterwards.

    Pages that a process has mapped stay (see `release_pages`), as do all pages of file systems in memory.
    """
    for descriptor in _opened(files):
        os.fsync(descriptor)  # pages that are not yet on disk are not dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def release_pages(path: Path) -> None:
    """Removes the pages of a file, or of the files below a folder, from this process's read-only mappings.

    The mappings stay valid: the next access reads the page again, from the page cache or from storage.
    """
    place, libc = str(path.resolve()), ctypes.CDLL(None, use_errno=True)
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or "w" in fields[1] or not (fields[5] == place or fields[5].startswith(f"{place}/")):
            continue
        first, last = (int(part, 16) for part in fields[0].split("-"))
        libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def load(files: Iterable[Path]) -> None:
    """Reads the files once, which puts them into the page cache if it is large enough."""
    for descriptor in _opened(files):
        while os.read(descriptor, 1 << 22):
            pass


def resident_share(files: Iterable[Path]) -> float:
    """Share of the files' pages that are in memory, in [0, 1]; 1 if the kernel does not report it.

    Linux reports it only to the owner of a file and to users who may write to it; for others all pages look resident.
    """
    resident = total = 0
    for descriptor in _opened(files):
        size = os.fstat(descriptor).st_size
        if size:
            pages = _pages(descriptor, size)
            resident, total = resident + int(pages.sum()), total + len(pages)
    return resident / total if total else 0.0


def _opened(files: Iterable[Path]) -> Iterator[int]:
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def _pages(descriptor: int, size: int) -> np.ndarray:
    """Which pages are in memory, bool (pages,). The mapping is never read, so the check loads no page."""
    pages = np.ones(-(-size // mmap.PAGESIZE), np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY) as mapped:
        view = (ctypes.c_char * size).from_buffer(mapped)
        failed = libc.mincore(ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(size), pages.ctypes.data_as(
            ctypes.c_void_p))  # fmt: skip
        del view  # the mapping cannot be closed while it is exported
    return np.ones(len(pages), bool) if failed else (pages & 1).astype(bool)
