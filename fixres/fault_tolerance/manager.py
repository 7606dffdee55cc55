"""Fault tolerance of a run: training checkpoints, signals that end it, losses that are not finite, stalls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.distributed.process_group import SharedFlags, broadcast, is_main, rank, wait_for_all
from fixres.fault_tolerance.checkpoints import CHECKPOINTS, CheckpointFiles
from fixres.fault_tolerance.loss_guard import LossGuard
from fixres.fault_tolerance.signals import StopSignal
from fixres.fault_tolerance.watchdog import Watchdog
from fixres.models.precision import Precision
from fixres.observability.clock import Clock
from fixres.observability.console import log
from fixres.pipelines.spec import Batch, InputError, Loader, OpenLoader

T = TypeVar("T")
_MAX_SHARE = 0.01  # of the time may be spent on saving


class Preempted(Exception):
    """A signal asked the run to end, and a training checkpoint is saved."""


class FaultTolerance:
    """Observes a run as the `Monitor` of its `Trainer`; a context manager.

    Args:
        folder: the run folder.
        config: see FaultToleranceConfig.
        precision: whether losses are scaled, and the device.
        snapshot: returns the content of a training checkpoint, or None to skip it; called in all processes after the
            same update.

    Attributes:
        clock: counts the time that `after_update` spends as "save"; to be set by those who train.
    """

    def __init__(
        self,
        folder: Path,
        config: FaultToleranceConfig,
        precision: Precision,
        snapshot: Callable[[], dict[str, Any] | None],
    ) -> None:
        self._config, self._snapshot = config, snapshot
        self._files = CheckpointFiles(folder / CHECKPOINTS, config.keep)
        self._guard = LossGuard(folder, precision.device, config.bad_losses if precision.name == "fp16" else 0)
        self._stop, self._flags = StopSignal(), SharedFlags()
        self._watchdog = Watchdog(folder, config.stall_seconds, rank())
        self._stack, self._interruptible, self.clock = ExitStack(), False, Clock()
        self._saved, self._pause, self._num_updates, self.serial = time.monotonic(), 0.0, 0, 0

    def __enter__(self) -> FaultTolerance:
        for part in (self._stop, self._watchdog):
            self._stack.enter_context(part)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def check_loss(self, loss: Tensor, batch: Batch, title: str, step: int) -> None:
        """Takes the loss of a step, a scalar on the device. InputError if it or an earlier one is not finite."""
        self._guard.add(loss, batch.indices, title, step)

    def after_update(self) -> float:
        """To be called after each update. Returns the seconds spent on saving; raises Preempted after a signal."""
        self._num_updates += 1
        stop, save = self._flags(self._stop.name is not None, is_main() and self._is_due())
        if not stop and not save:
            return 0.0
        start = time.perf_counter()
        with self.clock.stage("save"):
            self._guard.drain()
            self.save()
        if stop:
            raise Preempted(self._stop.name or "another process")
        return time.perf_counter() - start

    def end_epoch(self) -> None:
        """Checks all losses of the epoch. Raises InputError if one of them is not finite."""
        self._guard.drain()

    def raise_if_preempted(self) -> None:
        """Ends the run without saving, with Preempted, if a signal asked for it."""
        if self._stop.name is not None:
            raise Preempted(self._stop.name)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """In the block a signal ends the run between two batches, without saving; a resumed run repeats the block."""
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _is_due(self) -> bool:
        if self._config.steps and self._num_updates % self._config.steps == 0:
            return True
        now = time.monotonic()
        if now - self._saved <= max(60 * self._config.minutes, self._pause):
            return False
        self._saved = now  # several processes save one update later, and only once
        return True

    def save(self) -> None:
        """Saves a training checkpoint. If writing fails, the run logs it, continues, and tries again later."""
        self.heartbeat("saving a training checkpoint")
        start, content = time.monotonic(), self._snapshot()
        if content is not None:
            self._write(content)
        wait_for_all()
        self._saved = time.monotonic()
        self._pause = (self._saved - start) / _MAX_SHARE

    def _write(self, content: dict[str, Any]) -> None:
        self.serial += 1
        try:
            if is_main():
                self._files.write(self.serial, content)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else str(error)
            log(
                f"the training checkpoint was not saved ({reason}: {error.filename}); training continues, and the "
                "older checkpoints are intact"
            )

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a training checkpoint on disk."""
        return bool(self._files.saved())

    def newest(self) -> dict[str, Any] | None:
        """The newest intact training checkpoint of the main process, see `CheckpointFiles`; logs damaged ones."""
        found = broadcast(self._files.newest() if is_main() else None)
        if found is None:
            return None
        self.serial, content, damaged = found
        for line in damaged:
            log(line)
        return content

    def watched(self, open_loader: OpenLoader) -> OpenLoader:
        """Wraps `open_loader`: each batch of its loaders is a heartbeat, and `interruptible` work can end after it."""

        def opened(split: Any, **fields: Any) -> Loader:
            return _WatchedLoader(open_loader(split, **fields), self)  # type: ignore[return-value]

        return opened

    def heartbeat(self, activity: str) -> None:
        """Tells the watchdog what the process does next."""
        self._watchdog.heartbeat(activity)

    def between_batches(self) -> None:
        """Ends interruptible work if a signal asked for it."""
        if self._interruptible:
            self.raise_if_preempted()


class _WatchedLoader:
    """A loader with heartbeats; everything else is the wrapped loader's."""

    def __init__(self, loader: Loader, fault_tolerance: FaultTolerance) -> None:
        self._loader, self._fault_tolerance = loader, fault_tolerance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        return self._watched(self._loader)

    def index_batches(self) -> Iterator[np.ndarray]:
        """As the loader's; fine-tuning from a cache of features iterates over these."""
        return self._watched(self._loader.index_batches())

    def _watched(self, batches: Iterable[T]) -> Iterator[T]:
        fault_tolerance, size = self._fault_tolerance, self._loader.resolution
        waiting, working = f"waiting for data at {size} px", f"working on a batch at {size} px"
        fault_tolerance.heartbeat(waiting)
        try:
            for batch in batches:
                fault_tolerance.heartbeat(working)
                yield batch
                fault_tolerance.between_batches()
                fault_tolerance.heartbeat(waiting)
        except InputError:
            fault_tolerance.raise_if_preempted()  # a signal to the process group also ends the loader's workers
            raise
