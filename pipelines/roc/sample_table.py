"""The sample table of a file: where each sample lies, as the kernels take it; and read-ahead by its rows."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import psutil

from fixres.pipelines.formats.beton_layout import MODE_RAW
from fixres.pipelines.formats.beton_reader import BetonData
from fixres.pipelines.roc.layout import IMAGE_SIZE, IMAGE_START, NUM_SAMPLE_COLUMNS, ROC_SIZE, ROC_START
from fixres.pipelines.spec import InputError

_ALL = slice(None)
_MAX_SHARE = 0.5  # of the available memory; a smaller file stays in the page cache after it was read once


def locate_samples(reader: BetonData, indices: np.ndarray | slice = _ALL) -> np.ndarray:
    """The sample table of a file, int64 (n, 6).

    Its columns are the start and size in bytes of the image field, the same of the `roc` field, and the height and
    width of the image in pixels. The `roc` columns are 0 if the file has no such field.
    """
    if (reader.modes[indices] == MODE_RAW).any():
        raise InputError(
            f"{reader.path} holds raw pixels, and engine='roc' reads JPEG images; "
            "convert the data with --format roc, or choose --engine ffcv"
        )
    table = np.zeros((len(reader.sizes[indices]), NUM_SAMPLE_COLUMNS), np.int64)
    table[:, :2] = reader.image_spans[indices]
    if "roc" in reader.field_names:
        table[:, 2:4] = reader.field_spans("roc")[indices]
    table[:, 4:] = reader.sizes[indices]
    return table


class ReadAhead:
    """Tells the operating system which samples of a memory-mapped file will be needed.

    Files that fit in memory are left to the system's own read-ahead, which fills the cache faster in the first epoch;
    announcing costs 2 us a sample even if the data is in memory. In a larger file, a thread that reads page by page
    waits for the disk 10 times per sample. If they are announced, the pages of a batch are read in parallel while the
    previous batch is decoded.
    """

    def __init__(self, data: np.ndarray) -> None:
        """Compares the size of `data`, a memory map of the whole file, with the available memory."""
        self.active = data.size > _MAX_SHARE * psutil.virtual_memory().available
        self._start = data.ctypes.data
        self._madvise = ctypes.CDLL(None, use_errno=True).madvise
        self._madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        if self.active:
            self._advise(0, data.size, mmap.MADV_RANDOM)

    def announce(self, table: np.ndarray) -> None:
        """Starts reading some samples, int64 (n, 6) as from `locate_samples`."""
        if not self.active:
            return
        for sample in table:
            start, size = int(sample[IMAGE_START]), int(sample[IMAGE_SIZE])
            if sample[ROC_START] == start + size:  # the layout of this project's writer
                size += int(sample[ROC_SIZE])
            elif sample[ROC_SIZE]:
                self._advise(int(sample[ROC_START]), int(sample[ROC_SIZE]), mmap.MADV_WILLNEED)
            self._advise(start, size, mmap.MADV_WILLNEED)

    def _advise(self, start: int, size: int, advice: int) -> None:
        """Errors are ignored: advice only affects speed."""
        begin = (self._start + start) // mmap.PAGESIZE * mmap.PAGESIZE
        self._madvise(begin, self._start + start + size - begin, advice)
