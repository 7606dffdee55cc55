"""Looks after a long run: states on disk to go on from, signals that ask it to end, bad losses, standing still."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.distributed.process_group import Agreement, broadcast, is_main, rank, wait_for_all
from fixres.fault_tolerance.checkpoints import STATES, StateFiles
from fixres.fault_tolerance.loss_guard import LossGuard
from fixres.fault_tolerance.signals import StopSignal
from fixres.fault_tolerance.watchdog import Watchdog
from fixres.models.precision import Precision
from fixres.observability.console import log
from pipelines.spec import Batch, InputError, Loader, OpenLoader

T = TypeVar("T")
_SHARE = 0.01  # of the time may go into writing states


class Preempted(Exception):
    """A signal asked the run to end, and what it was doing can be gone on with."""


class FaultTolerance:
    """What `Trainer` and the experiment tell of their progress; a context manager.

    Args:
        folder: the run folder.
        config: how often, how many, how long.
        precision: whether losses are scaled, and the device.
        snapshot: gives the state of the whole run, None to keep none; called in all processes after the same update.
    """

    def __init__(
        self,
        folder: Path,
        config: FaultToleranceConfig,
        precision: Precision,
        snapshot: Callable[[], dict[str, Any] | None],
    ) -> None:
        self._config, self._snapshot = config, snapshot
        self._files = StateFiles(folder / STATES, config.keep)
        self._guard = LossGuard(folder, precision.device, config.bad_losses if precision.name == "fp16" else 0)
        self._stop, self._agreement = StopSignal(), Agreement(2)
        self._watchdog = Watchdog(folder, config.stall_seconds, rank())
        self._stack = ExitStack()
        self._saved, self._pause, self._num_updates, self.serial = time.monotonic(), 0.0, 0, 0

    def __enter__(self) -> FaultTolerance:
        for part in (self._stop, self._watchdog):
            self._stack.enter_context(part)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def loss(self, loss: Tensor, batch: Batch, title: str, step: int) -> None:
        """A batch's loss, on the device.

        Raises:
            InputError: it, or one before it, is not finite.
        """
        self._guard.add(loss, batch.indices, title, step)

    def updated(self) -> float:
        """The weights were updated. Returns seconds spent on anything but training.

        Raises:
            Preempted: a signal came, and the state is saved.
        """
        self._num_updates += 1
        stop, save = self._agreement(self._stop.name is not None, is_main() and self._is_due())
        if not stop and not save:
            return 0.0
        start = time.perf_counter()
        self._guard.drain()
        self.save()
        if stop:
            raise Preempted(self._stop.name or "another process")
        return time.perf_counter() - start

    def end_of_epoch(self) -> None:
        """All losses of an epoch were given.

        Raises:
            InputError: one of them is not finite.
        """
        self._guard.drain()

    def raise_if_preempted(self) -> None:
        """Ends the run if a signal asked for it, where all that matters is saved already.

        Raises:
            Preempted: a signal came.
        """
        if self._stop.name is not None:
            raise Preempted(self._stop.name)

    def _is_due(self) -> bool:
        if self._config.steps and self._num_updates % self._config.steps == 0:
            return True
        now = time.monotonic()
        if now - self._saved <= max(60 * self._config.minutes, self._pause):
            return False
        self._saved = now  # asked for: processes that train together save one update later, and once
        return True

    def save(self) -> None:
        """Writes a state. One that cannot be written is said and tried again later: the run is worth more."""
        self._watchdog.doing("saving its state")
        start, content = time.monotonic(), self._snapshot()
        if content is not None:
            self._write(content)
        wait_for_all()
        self._saved = time.monotonic()
        self._pause = (self._saved - start) / _SHARE

    def _write(self, content: dict[str, Any]) -> None:
        self.serial += 1
        try:
            if is_main():
                self._files.write(self.serial, content)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            log(f"the state was not saved ({reason}: {error.filename}); training goes on, the older states are whole")

    @property
    def has_state(self) -> bool:
        """Whether there is a state on disk."""
        return bool(self._files.saved())

    def newest(self) -> dict[str, Any] | None:
        """The newest good state, if the main process has one, on the CPU; says which ones were damaged.

        Raises:
            InputError: there are states, and all are damaged.
        """
        found = broadcast(self._files.newest() if is_main() else None)
        if found is None:
            return None
        self.serial, content, damaged = found
        for line in damaged:
            log(line)
        return content

    def watched(self, open_loader: OpenLoader, interruptible: Callable[[], bool]) -> OpenLoader:
        """Opens loaders whose batches count as signs of life.

        Args:
            open_loader: opens what is watched.
            interruptible: whether a signal may end the run between two batches, now.
        """

        def opened(split: Any, **fields: Any) -> Loader:
            return _Watched(open_loader(split, **fields), self, interruptible)  # type: ignore[return-value]

        return opened

    def doing(self, what: str) -> None:
        """A sign of life: what comes next."""
        self._watchdog.doing(what)


class _Watched:
    """A loader that tells of its batches; all else is that of the loader it wraps."""

    def __init__(self, loader: Loader, fault_tolerance: FaultTolerance, interruptible: Callable[[], bool]) -> None:
        self._loader, self._fault_tolerance, self._interruptible = loader, fault_tolerance, interruptible

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return self._told(self._loader)

    def index_batches(self) -> Iterator[np.ndarray]:
        """As the loader's; what is kept of the images is trained on in these batches."""
        return self._told(self._loader.index_batches())

    def _told(self, batches: Iterable[T]) -> Iterator[T]:
        fault_tolerance, size = self._fault_tolerance, self._loader.resolution
        waiting, working = f"waiting for data at {size} px", f"working on a batch at {size} px"
        fault_tolerance.doing(waiting)
        try:
            for batch in batches:
                fault_tolerance.doing(working)
                yield batch
                if self._interruptible():
                    fault_tolerance.raise_if_preempted()
                fault_tolerance.doing(waiting)
        except InputError:
            fault_tolerance.raise_if_preempted()  # a signal to the process group ends the loader's workers, too
            raise
