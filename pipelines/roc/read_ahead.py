"""Tells the kernel which parts of a memory-mapped file will be needed."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import psutil

from pipelines.roc.places import IMAGE_SIZE, IMAGE_START, ROC_SIZE, ROC_START

_MAX_SHARE = 0.5  # of the available memory; a file below that stays in the page cache once it was read


class ReadAhead:
    """Announces samples of a file that is too large for the page cache.

    Page by page a thread would wait for the disk 10 times a sample; announced together, a batch's pages are read in
    parallel while the batch before is decoded. Files that fit in memory are left to the kernel's own read-ahead, which
    fills the cache faster in the first epoch; announcing costs 2 us a sample even if all is there already.
    """

    def __init__(self, data: np.ndarray) -> None:
        """Looks at the memory.

        Args:
            data: uint8, a memory map of the whole file.
        """
        self.active = data.size > _MAX_SHARE * psutil.virtual_memory().available
        self._start = data.ctypes.data
        self._madvise = ctypes.CDLL(None, use_errno=True).madvise
        self._madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if self.active:
            self._advise(0, data.size, mmap.MADV_RANDOM)

    def announce(self, places: np.ndarray) -> None:
        """Starts reading the records of some samples, int64 (n, 6) as in `decode.decode_samples`."""
        if not self.active:
            return
        for place in places:
            start, size = int(place[IMAGE_START]), int(place[IMAGE_SIZE])
            if place[ROC_START] == start + size:  # as our writer lays them out
                size += int(place[ROC_SIZE])
            elif place[ROC_SIZE]:
                self._advise(int(place[ROC_START]), int(place[ROC_SIZE]), mmap.MADV_WILLNEED)
            self._advise(start, size, mmap.MADV_WILLNEED)

    def _advise(self, start: int, size: int, advice: int) -> None:
        """Advice that the kernel does not take is no error."""
        begin = (self._start + start) // mmap.PAGESIZE * mmap.PAGESIZE
        self._madvise(begin, self._start + start + size - begin, advice)
