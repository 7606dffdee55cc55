"""Detects losses that are not finite, with their batches, without making the host wait for every step."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.spec import InputError

_MAX_PENDING = 64  # losses on their way to the host; with more, the host waits for the oldest
_NUM_SHOWN = 5  # sample indices in the error's line; the file has all


Copier = Callable[[Tensor], tuple[Tensor, torch.cuda.Event | None]]
"""Starts copying a scalar to the host; returns the copy, and the event after which it is valid (None: now)."""


@dataclass(frozen=True)
class _Loss:
    value: Tensor
    arrived: torch.cuda.Event | None
    indices: Tensor
    title: str
    step: int


class LossGuard:
    """Ends a run whose loss is not finite.

    On CUDA each loss is copied to pinned memory after the step that computes it, and checked when the copy is done:
    some steps later, in the order of the steps, and at the latest in `drain`.

    Args:
        folder: gets `nonfinite-TITLE-STEP.json` with the samples of the batches.
        device: where the losses are.
        num_allowed: bad losses in a row that are allowed; with fp16, loss scaling skips such steps.
        copier: replaces the copier of the device.
    """

    def __init__(self, folder: Path, device: torch.device, num_allowed: int = 0, copier: Copier | None = None) -> None:
        self.folder, self.num_allowed = folder, num_allowed
        self._copy = copier or (_ToPinned(device) if device.type == "cuda" else _read)
        self._pending: deque[_Loss] = deque()
        self._bad: list[tuple[float, _Loss]] = []  # the last ones, in a row

    def add(self, loss: Tensor, indices: Tensor, title: str, step: int) -> None:
        """Adds the loss of a step, and checks the earlier losses whose copies are done.

        Args:
            loss: scalar, on the device.
            indices: int64 (B,), the batch's samples, -1 if the engine does not know them. Not copied.
            title: of the epoch, as in the progress bar.
            step: number of the step, for the report.

        Raises:
            InputError: more than `num_allowed` losses in a row were not finite; names the last of them.
        """
        value, arrived = self._copy(loss.detach())
        self._pending.append(_Loss(value, arrived, indices, title, step))
        while self._pending and (first := self._pending[0]):
            if first.arrived is not None and not first.arrived.query():
                if len(self._pending) <= _MAX_PENDING:
                    return
                first.arrived.synchronize()
            self._check(self._pending.popleft())

    def drain(self) -> None:
        """Waits for all copies and checks them. Raises as `add`."""
        while self._pending:
            loss = self._pending.popleft()
            if loss.arrived is not None:
                loss.arrived.synchronize()
            self._check(loss)

    def _check(self, loss: _Loss) -> None:
        value = loss.value.item()  # now, because its slot is used again
        if math.isfinite(value):
            self._bad.clear()
            return
        self._bad.append((value, loss))
        if len(self._bad) > self.num_allowed:
            bad, self._bad = self._bad, []
            self._pending.clear()  # the steps after it started from broken weights
            raise InputError(_describe(bad, _write_samples(self.folder, bad)))


def _read(loss: Tensor) -> tuple[Tensor, None]:
    return loss, None


class _ToPinned:
    """Copies into pinned memory that is allocated once: an allocation while kernels run can delay them."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._num_sent = device, 0
        self._slots = torch.empty(_MAX_PENDING + 1, pin_memory=True)

    def __call__(self, loss: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        slot = self._slots[self._num_sent % len(self._slots)]
        self._num_sent += 1
        slot.copy_(loss.float(), non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._device))
        return slot, event


def _write_samples(folder: Path, bad: list[tuple[float, _Loss]]) -> str:
    """Writes the samples to a file; returns where they are, in words."""
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
        return f"could not be written to {path} ({error.strerror})"
    return f"are in {path}"


def _describe(bad: list[tuple[float, _Loss]], where: str) -> str:
    value, last = bad[-1]
    indices = last.indices.tolist()
    row = f", after {len(bad) - 1} others that are not finite" if len(bad) > 1 else ""
    if min(indices, default=-1) < 0:
        samples = f"its {len(indices)} samples, whose indices the engine does not know,"
    else:
        shown = ", ".join(map(str, indices[:_NUM_SHOWN])) + (", ..." if len(indices) > _NUM_SHOWN else "")
        samples = f"its {len(indices)} samples ({shown})"
    return (
        f"{last.title}: the loss of step {last.step} is {value}{row}; {samples} {where}. Lower optim.lr, lengthen "
        "optim.warmup_epochs, or check these samples; --resume auto continues from the last training checkpoint"
    )
