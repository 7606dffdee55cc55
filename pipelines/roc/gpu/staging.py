"""Puts everything that the GPU needs of a batch into one buffer in host memory, so that one copy brings it there.

The buffer holds plans, boxes, error codes, labels and indices, and then the bytes of the crops.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from fixres.pipelines.roc.gpu.arguments import Batch, Launch, launches
from fixres.pipelines.roc.gpu.crop_plan import (
    NUM_PLAN,
    lay_out_scratch,
    pack_crops,
    packed_starts,
    plan_crops,
)
from fixres.pipelines.roc.layout import NUM_COUNTS
from fixres.pipelines.sampling.crops import Boxes

_CHUNK = 64  # samples that a thread takes at a time: 0.1 ms of work at 128 px
_WIDTHS = {"crops": NUM_PLAN, "boxes": 4, "codes": 1, "labels": 1, "indices": 1}  # words of 8 bytes for each crop


@dataclass
class Staged:
    """A batch in host memory."""

    buffer: Tensor
    """uint8, see above; begins with the arrays of `section`."""
    codes: np.ndarray
    """int64 (B,): errors that the host has found."""
    counts: np.ndarray
    """int64 (B, 3), as `crops.decode_samples` fills them."""
    resolution: int
    scratch_size: int
    """Bytes."""
    launches: tuple[Launch, ...]

    def arguments(self, there: Tensor, stored: Tensor | None, scratch: Tensor, images: Tensor) -> Batch:
        """The kernels' arguments, after the buffer was copied to `there`.

        Args:
            there: the copy.
            stored: the whole file, if its bytes are not in the buffer.
            scratch: uint8, at least `scratch_size`.
            images: uint8 (B, r, r, 3), for the output.
        """
        num = len(self.codes)
        batch = Batch(num=num, resolution=self.resolution)
        for name in ("crops", "boxes", "codes"):
            setattr(batch, name, section(there, num, name).data_ptr())
        batch.bytes = there.data_ptr() + _bytes_start(num) if stored is None else stored.data_ptr()
        batch.scratch, batch.out = scratch.data_ptr(), images.data_ptr()
        return batch


class Stager:
    """Stages batches of one file.

    Args:
        data: uint8, the whole file.
        inside, min_zoom: as in `crops.decode_samples`.
        allocate: returns a host buffer of a number of bytes.
        pool: threads that share the work, or None for the calling thread.
        is_resident: the device has the file, so no bytes of crops are copied.
    """

    def __init__(
        self,
        data: np.ndarray,
        inside: bool,
        min_zoom: float,
        allocate: Callable[[int], Tensor],
        pool: Executor | None,
        is_resident: bool = False,
    ) -> None:
        self._data, self._inside, self._min_zoom = data, inside, min_zoom
        self._allocate, self._pool, self._is_resident = allocate, pool, is_resident

    def stage(self, table: np.ndarray, chosen: Boxes, labels: np.ndarray, indices: np.ndarray, side: int) -> Staged:
        """Plans and packs a batch of B > 0 crops.

        Args:
            table: int64 (B, 6), rows of the sample table.
            chosen: the crops, with boxes in float64.
            labels, indices: int64 (B,).
            side: resolution of the output in pixels.
        """
        num, head = len(table), np.empty(_bytes_start(len(table)) // 8, np.int64)
        parts = {name: head[part].reshape(num, -1) for name, part in _places(num).items()}
        plans, boxes, codes = parts["crops"], parts["boxes"].view(np.float64), parts["codes"][:, 0]
        parts["labels"][:, 0], parts["indices"][:, 0] = labels, indices
        counts = np.empty((num, NUM_COUNTS), np.int64)

        def plan(part: slice) -> None:
            wanted = (self._data, table[part], *(array[part] for array in chosen), side, self._inside)
            plan_crops(*wanted, self._min_zoom, plans[part], boxes[part], codes[part], counts[part])

        self._share(plan, num)
        starts = np.empty(num, np.int64)
        num_bytes = 0 if self._is_resident else packed_starts(plans, counts, starts)
        buffer = self._allocate(head.nbytes + num_bytes)
        into = buffer.numpy()

        def pack(part: slice) -> None:
            pack_crops(self._data, plans[part], starts[part], into[head.nbytes :])

        if not self._is_resident:
            self._share(pack, num)
        scratch_size, most = lay_out_scratch(plans, side)
        into[: head.nbytes] = head.view(np.uint8)
        kernels = launches(num, side, max(most, 1), int(chosen.bicubic.sum()))
        return Staged(buffer, codes, counts, side, scratch_size, kernels)

    def _share(self, work: Callable[[slice], None], num: int) -> None:
        parts = [slice(first, min(first + _CHUNK, num)) for first in range(0, num, _CHUNK)]
        if self._pool is None or len(parts) == 1:
            work(slice(0, num))
        else:
            list(self._pool.map(work, parts))


def section(buffer: Tensor, num: int, name: str) -> Tensor:
    """A view of one array of a buffer, int64 (n,): "crops", "boxes", "codes", "labels" or "indices"."""
    part = _places(num)[name]
    return buffer[8 * part.start : 8 * part.stop].view(torch.int64)


@lru_cache(maxsize=8)  # nearly all batches have the same size
def _places(num: int) -> dict[str, slice]:
    """Where the arrays of `section` are in a buffer, in words of 8 bytes."""
    ends = num * np.cumsum(list(_WIDTHS.values()))
    return {name: slice(int(end) - num * _WIDTHS[name], int(end)) for name, end in zip(_WIDTHS, ends, strict=True)}


def _bytes_start(num: int) -> int:
    """Where the crops' bytes begin in a buffer; a multiple of 8, as the arrays before are words of 8 bytes."""
    return 8 * num * sum(_WIDTHS.values())
