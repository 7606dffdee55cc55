"""Losses that are not finite: noticed soon, with the batch that did it, and without stopping the host at every step."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from pipelines.runtime.atomic_files import write_json
from pipelines.spec import InputError

_MAX_UNDER_WAY = 64  # losses on their way to the host; beyond, the host waits for the oldest
_NUM_SHOWN = 5  # sample indices in the error's line; the file has all


class Event(Protocol):
    """Says whether the device has come to it; torch.cuda.Event is one."""

    def query(self) -> bool: ...

    def synchronize(self) -> None: ...


Copier = Callable[[Tensor], tuple[Tensor, Event | None]]
"""Sends a scalar to the host: where it will stand, and when (None: it already does)."""


@dataclass(frozen=True)
class _Loss:
    value: Tensor
    arrived: Event | None
    indices: Tensor
    title: str
    step: int


class LossGuard:
    """Ends a run whose loss is no number any more.

    On CUDA a loss is copied to pinned memory behind the step that computes it, and looked at once it is there: some
    steps late, in the order of the steps, and never after `drain`.

    Args:
        folder: gets `nonfinite-TITLE-STEP.json` with the samples of the batches that did it.
        device: where the losses are.
        num_allowed: bad losses in a row that are let pass; fp16 with loss scaling leaves such steps out by itself.
        copier: in place of the device's own.
    """

    def __init__(self, folder: Path, device: torch.device, num_allowed: int = 0, copier: Copier | None = None) -> None:
        self.folder, self.num_allowed = folder, num_allowed
        self._copy = copier or (_ToPinned(device) if device.type == "cuda" else _read)
        self._under_way: deque[_Loss] = deque()
        self._bad: list[tuple[float, _Loss]] = []  # the last ones, in a row

    def add(self, loss: Tensor, indices: Tensor, title: str, step: int) -> None:
        """Takes a step's loss, and looks at those of steps before that have arrived.

        Args:
            loss: scalar, on the device.
            indices: int64 (B,), the batch's samples; -1 where the engine cannot tell. Kept, not copied.
            title: of the epoch, as in the progress bar.
            step: number of the step, for the report.

        Raises:
            InputError: more than `num_allowed` losses in a row were not finite; names the last of them.
        """
        value, arrived = self._copy(loss.detach())
        self._under_way.append(_Loss(value, arrived, indices, title, step))
        while self._under_way and (first := self._under_way[0]):
            if first.arrived is not None and not first.arrived.query():
                if len(self._under_way) <= _MAX_UNDER_WAY:
                    return
                first.arrived.synchronize()
            self._look(self._under_way.popleft())

    def drain(self) -> None:
        """Waits for and looks at all that were added. Raises as `add`."""
        while self._under_way:
            loss = self._under_way.popleft()
            if loss.arrived is not None:
                loss.arrived.synchronize()
            self._look(loss)

    def _look(self, loss: _Loss) -> None:
        value = loss.value.item()  # now: its place is used again
        if math.isfinite(value):
            self._bad.clear()
            return
        self._bad.append((value, loss))
        if len(self._bad) > self.num_allowed:
            bad, self._bad = self._bad, []
            self._under_way.clear()  # of steps after it, which start from broken weights
            raise InputError(_describe(bad, _note(self.folder, bad)))


def _read(loss: Tensor) -> tuple[Tensor, None]:
    return loss, None


class _ToPinned:
    """Copies into pinned memory that is made once: to allocate some while kernels run can hold them up."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._num_sent = device, 0
        self._slots = torch.empty(_MAX_UNDER_WAY + 1, pin_memory=True)

    def __call__(self, loss: Tensor) -> tuple[Tensor, Event]:
        slot = self._slots[self._num_sent % len(self._slots)]
        self._num_sent += 1
        slot.copy_(loss.float(), non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return slot, event


def _note(folder: Path, bad: list[tuple[float, _Loss]]) -> str:
    """Writes the file, and says where it is."""
    last = bad[-1][1]
    slug = re.sub(r"[^A-Za-z0-9]+", "-", last.title).strip("-")[:80] or "run"
    path = folder / f"nonfinite-{slug}-{last.step}.json"
    batches = [
        {"title": one.title, "step": one.step, "loss": str(value), "indices": one.indices.tolist()}
        for value, one in bad
    ]
    try:
        write_json(path, {"title": last.title, "step": last.step, "batches": batches})
    except OSError as error:  # a full disk must not hide the loss
        return f"could not be noted in {path} ({error.strerror})"
    return f"are noted in {path}"


def _describe(bad: list[tuple[float, _Loss]], noted: str) -> str:
    value, last = bad[-1]
    indices = last.indices.tolist()
    row = f", not finite like the {len(bad) - 1} before it" if len(bad) > 1 else ""
    if min(indices, default=-1) < 0:
        samples = f"its {len(indices)} samples, of which the engine cannot tell the indices,"
    else:
        shown = ", ".join(map(str, indices[:_NUM_SHOWN])) + (", ..." if len(indices) > _NUM_SHOWN else "")
        samples = f"its {len(indices)} samples ({shown})"
    return (
        f"{last.title}: the loss of step {last.step} is {value}{row}; {samples} {noted}. Lower optim.lr, lengthen "
        "optim.warmup_epochs, or look at those samples; --resume auto goes on from the last state"
    )
