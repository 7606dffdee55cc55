"""Whether freed memory stays in the process: glibc gives large buffers back to the kernel, which clears them again.

A network allocates and frees a buffer of many MB for each operator. On a CPU half of an evaluation's time was the
kernel's, for pages that had been given back a moment before (docs/benchmarks.md has the gain).
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

VARIABLE = "FIXRES_ALLOCATOR"
"""Environment variable; "default" leaves the allocator of command lines and workers as it is."""
KEPT = "glibc, keeps freed memory"
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of mallopt in glibc's malloc.h
_SETTINGS = (
    (_MMAP_MAX, 0),  # no buffer has pages of its own; a threshold instead is limited to 32 MiB before glibc 2.35
    (_TRIM_THRESHOLD, -1),  # never gives the end of the heap back
    (_TOP_PAD, 64 << 20),  # asks the kernel seldom; pages that nobody touches take no memory
)
_MADV_HUGEPAGE = 14  # of Linux's madvise
_MOST_RESERVED = 16 << 30
_OTHERS = ("jemalloc", "tcmalloc", "mimalloc", "tbbmalloc_proxy")
_setting = ""  # after `tune_allocator`


def tune_allocator() -> str:
    """Lets this process keep the memory that it frees, for networks on CPUs: two to five times the images/s.

    The command line and worker processes do this themselves. `import fixres` does not, because the setting holds for
    the whole process: its resident memory stays at its peak, which becomes up to 1.3 times as large. Call it once at
    the start of a program. Nothing is done without glibc (on musl, macOS), with another allocator (as by LD_PRELOAD),
    or if the user has chosen settings by GLIBC_TUNABLES, MALLOC_... or FIXRES_ALLOCATOR=default.

    Returns:
        The setting that holds now, in a few words, as records of benchmarks have it: "glibc, keeps freed memory" if it
        was changed.
    """
    global _setting
    if not _setting and allocator() == "glibc":
        library = ctypes.CDLL(None)
        if all(library.mallopt(*setting) for setting in _SETTINGS):
            _setting = KEPT
            _reserve_huge_pages(library)
    return allocator()


def _reserve_huge_pages(library: ctypes.CDLL) -> None:
    """Lets the kernel use pages of 2 MiB for what the heap grows into; untouched, it takes addresses but no memory.

    Fewer entries of page tables make operators on large buffers up to a quarter faster. GLIBC_TUNABLES could ask for
    the same, but only before the process starts.
    """
    if _counts_addresses_as_memory():
        return
    size = min(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2, _MOST_RESERVED)
    library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    library.free.argtypes = [ctypes.c_void_p]
    library.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if start := library.malloc(size):  # None where addresses are limited (ulimit -v)
        page = os.sysconf("SC_PAGE_SIZE")
        library.madvise(-(-start // page) * page, size // page * page - page, _MADV_HUGEPAGE)
        library.free(start)


def _counts_addresses_as_memory() -> bool:
    """Whether the kernel refuses to promise more memory than it has (strict overcommit)."""
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2"
    except OSError:
        return True


def allocator() -> str:
    """This process's allocator and its setting, in a few words."""
    return _setting or _found()


@cache
def _found() -> str:
    """The allocator before `tune_allocator`: "glibc" if it may be set."""
    try:
        library, loaded = ctypes.CDLL(None), Path("/proc/self/maps").read_text()
    except OSError:
        return "the system's"
    if other := next((name for name in _OTHERS if f"lib{name}" in loaded), None):
        return other
    if not (hasattr(library, "mallopt") and hasattr(library, "gnu_get_libc_version")):
        return "the system's"
    if os.environ.get(VARIABLE) == "default":
        return "glibc, default settings"
    chosen = [name for name in os.environ if name.startswith("MALLOC_") and name.endswith("_")]
    if "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", ""):
        chosen.append("GLIBC_TUNABLES")
    return f"glibc, set by {', '.join(sorted(chosen))}" if chosen else "glibc"
