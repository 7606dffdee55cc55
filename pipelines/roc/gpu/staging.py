"""Puts everything that the GPU needs of a batch into one buffer in host memory, so that one copy brings it there.

The buffer holds plans, boxes, error codes, labels and indices, and then the bytes of the crops. Crops by a crop index
are packed by the threads that read the files (`Packed`). Crops that the host has made lie behind them, first their
places in the batch, then their pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixres.pipelines.roc.gpu.arguments import Batch, Launch, launches
from fixres.pipelines.roc.gpu.crop_plan import (
    BICUBIC,
    DATA,
    DATA_END,
    HEADER,
    INDEX,
    NUM_PLAN,
    NUM_SEGMENTS,
    PADDING,
    lay_out_scratch,
    pack_crops,
    packed_starts,
    plan_crops,
)
from fixres.pipelines.roc.layout import NUM_COUNTS
from fixres.pipelines.sampling.crops import Boxes

_CHUNK = 64  # samples that a thread takes at a time: 0.1 ms of work at 128 px
_WIDTHS = {"crops": NUM_PLAN, "boxes": 4, "codes": 1, "labels": 1, "indices": 1}  # words of 8 bytes for each crop


class Packed(NamedTuple):
    """A part of a batch by a crop index, as `crop_index.gpu.plan` makes it.

    Attributes:
        plans, boxes: (m, NUM_PLAN) and (m, 4). Positions are in `data`. Plans of crops that the GPU does not make are
            zeros.
        data: uint8.
        made: uint8 (r, r, 3), by their places in the part: crops that the host made.
    """

    plans: np.ndarray
    boxes: np.ndarray
    data: np.ndarray
    made: dict[int, np.ndarray]


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
    num_made: int = 0
    """Crops that the host made, at the buffer's end."""

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

    def insert_made(self, there: Tensor, images: Tensor) -> None:
        """Copies the crops that the host made from the copied buffer to the output."""
        if self.num_made:
            pixels = there[len(there) - self.num_made * images[0].numel() :]
            slots = there[len(there) - len(pixels) - 8 * self.num_made : len(there) - len(pixels)].view(torch.int64)
            images.index_copy_(0, slots, pixels.view(-1, *images.shape[1:]))


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


def stage_packed(
    parts: Sequence[Packed],
    counts: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    side: int,
    allocate: Callable[[int], Tensor],
) -> Staged:
    """Joins the parts of a batch of B > 0 crops.

    Args:
        parts: in order; their plans are changed.
        counts: int64 (B, 3).
        labels, indices, side: see `Stager.stage`.
        allocate: see `Stager`.
    """
    num, starts = len(indices), [0]
    for part in parts:
        has_data = part.plans[:, NUM_SEGMENTS] > 0
        part.plans[np.ix_(has_data, [HEADER, DATA, DATA_END, INDEX])] += starts[-1]
        starts.append(starts[-1] + _whole_words(len(part.data)))
    plans, boxes = (np.concatenate(arrays) for arrays in list(zip(*parts, strict=True))[:2])
    scratch_size, _ = lay_out_scratch(plans, side)
    slots, made = _made(parts)
    head = _bytes_start(num)
    data_end = head + starts[-1] + PADDING
    buffer = allocate(data_end + slots.nbytes + made.nbytes)
    into, places = buffer.numpy(), _places(num)
    columns = {"crops": plans, "boxes": boxes, "codes": np.zeros(num, np.int64), "labels": labels, "indices": indices}
    for name, array in columns.items():
        into[8 * places[name].start : 8 * places[name].stop] = np.ascontiguousarray(array).view(np.uint8).reshape(-1)
    for start, part in zip(starts, parts, strict=False):
        into[head + start : head + start + len(part.data)] = part.data
    into[data_end : data_end + slots.nbytes] = slots.view(np.uint8)
    into[data_end + slots.nbytes :] = made.reshape(-1)
    most, num_bicubic = int(plans[:, NUM_SEGMENTS].max()), int(plans[:, BICUBIC].sum())
    kernels = launches(num, side, max(most, 1), num_bicubic, by_index=True)
    return Staged(buffer, columns["codes"], counts, side, scratch_size, kernels, len(slots))


def _made(parts: Sequence[Packed]) -> tuple[np.ndarray, np.ndarray]:
    """Places in the batch, int64 (m,), and pixels, uint8 (m, r, r, 3), of the crops that the host made."""
    firsts = np.cumsum([0, *(len(part.plans) for part in parts)]).tolist()
    slots = [first + slot for first, part in zip(firsts, parts, strict=False) for slot in part.made]
    made = [crop for part in parts for crop in part.made.values()]
    return np.array(slots, np.int64), np.stack(made) if made else np.empty(0, np.uint8)


def _whole_words(num_bytes: int) -> int:
    return -(-num_bytes // 8) * 8


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
