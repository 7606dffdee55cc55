"""Threads cut batches of JPEG files into one array, which is the fastest input of DALI."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from typing import NamedTuple

import numpy as np

from fixres.pipelines.loaders.delivery import HostBuffers
from fixres.pipelines.roc.cut_batch import NUM_PLAN, plan_cuts, write_cuts
from fixres.pipelines.roc.layout import BYTES, NUM_COUNTS

_CHUNK = 64  # samples a thread takes at a time: 0.3 ms of work at 128 px; submitting it takes 0.05 ms
_MAX_PADDING = 8  # largest ratio of the array's bytes to the cuts' bytes; else one huge cut would make 255 huge rows
_ALIGNMENT = 4096  # bytes; rows of nearly the same width share buffers


class Cuts(NamedTuple):
    """The cuts of a batch. Rows of samples whose code is not OK are undefined."""

    encoded: np.ndarray | list[np.ndarray]
    """uint8 (B, m), a JPEG file in each row, padded with zeros; or, if that would be mostly zeros, a list of B uint8
    arrays."""
    used: np.ndarray  # int64 (B, 4), the pixels of each cut that may be used: y, x, h, w
    boxes: np.ndarray  # float64 (B, 4), the box in pixels of the cut: y, x, h, w
    codes: np.ndarray  # int64 (B,), error codes
    counts: np.ndarray  # int64 (B, 3), as `cut_batch.plan_cuts` fills it


class Cutter:
    """Cuts crops of one file. A buffer is reused once its `Cuts` are freed.

    Args:
        data, inside, min_zoom, bicubic: as in `cut_batch.plan_cuts`.
        pool: threads that share the work, or None for the calling thread.
    """

    def __init__(
        self, data: np.ndarray, inside: bool, min_zoom: float, pool: Executor | None, bicubic: bool = False
    ) -> None:
        self._data, self._how, self._pool = data, (inside, bicubic, min_zoom), pool
        self._buffers = HostBuffers()

    def cut(self, table: np.ndarray, boxes: np.ndarray, resolution: int) -> Cuts:
        """The cuts of n samples: table int64 (n, 6), boxes float64 (n, 4) in pixels of the images."""
        num = len(table)
        plans, counts = np.empty((num, NUM_PLAN), np.int64), np.empty((num, NUM_COUNTS), np.int64)
        used, there, codes = np.empty((num, 4), np.int64), np.empty((num, 4)), np.empty(num, np.int64)

        def plan(part: slice) -> None:
            filled = (plans[part], used[part], there[part], codes[part], counts[part])
            plan_cuts(self._data, table[part], boxes[part], resolution, *self._how, *filled)

        self._share(plan, num, _CHUNK)
        encoded = self._allocate(counts[:, BYTES])
        chunk = _CHUNK if isinstance(encoded, np.ndarray) else 1

        def write(part: slice) -> None:
            rows = encoded[part] if chunk > 1 else encoded[part.start].reshape(1, -1)
            write_cuts(self._data, table[part], plans[part], counts[part], rows, codes[part])

        self._share(write, num, chunk)
        return Cuts(encoded, used, there, codes, counts)

    def _share(self, work: Callable[[slice], None], num: int, chunk: int) -> None:
        parts = [slice(first, min(first + chunk, num)) for first in range(0, num, chunk)]
        if self._pool is None or len(parts) == 1:
            for part in parts:
                work(part)
        else:
            list(self._pool.map(work, parts))

    def _allocate(self, sizes: np.ndarray) -> np.ndarray | list[np.ndarray]:
        """Memory for the cuts, contents undefined."""
        width = max(1, math.ceil(int(sizes.max(initial=1)) / _ALIGNMENT)) * _ALIGNMENT
        if width * len(sizes) > _MAX_PADDING * (int(sizes.sum()) + len(sizes) * _ALIGNMENT):
            return [np.empty(max(int(size), 1), np.uint8) for size in sizes]
        return self._buffers.take(len(sizes), width)
