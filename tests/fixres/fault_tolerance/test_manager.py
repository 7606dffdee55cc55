"""When a run saves, which events are heartbeats, and what happens if a signal also ends the data workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.fault_tolerance import manager as module
from fixres.fault_tolerance.manager import FaultTolerance, Preempted
from fixres.pipelines.spec import InputError, Loader
from tests.fixres.conftest import CPU


class _Lagging:
    """`SharedFlags` of several processes: a flag is seen at the next call."""

    def __init__(self) -> None:
        self._before = (False, False)

    def __call__(self, *flags: bool) -> tuple[bool, ...]:
        seen, self._before = self._before, flags
        return seen


@pytest.mark.parametrize(("lags", "steps"), [(False, 0), (True, 0), (False, 3), (True, 3)])
def test_a_checkpoint_that_is_due_is_saved_once(
    lags: bool, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update takes ten seconds, so with a minute between checkpoints there are seven updates between two."""
    seconds = [0.0]
    clock = SimpleNamespace(monotonic=lambda: seconds[0], perf_counter=lambda: seconds[0])
    monkeypatch.setattr(module, "time", clock)
    config = FaultToleranceConfig(minutes=1, steps=steps, stall_seconds=0)
    fault_tolerance, saved = FaultTolerance(tmp_path, config, CPU, lambda: None), []
    monkeypatch.setattr(
        fault_tolerance,
        "save",
        lambda: (saved.append(fault_tolerance._num_updates), setattr(fault_tolerance, "_saved", seconds[0])),
    )
    if lags:
        monkeypatch.setattr(fault_tolerance, "_flags", _Lagging())
    for _ in range(30):
        seconds[0] += 10
        fault_tolerance.after_update()
    every, late = steps or 7, int(lags)
    first = [every + late + k * (every + (late if not steps else 0)) for k in range(30)]
    assert saved == [update for update in first if update <= 30]


def _watched(fault_tolerance: FaultTolerance, open_coded: Callable[..., Loader], interruptible: bool = False) -> Loader:
    fault_tolerance._interruptible = interruptible
    return fault_tolerance.watched(open_coded)("train")


@pytest.mark.parametrize("kind", ["images", "indices"])
def test_each_batch_is_a_heartbeat_and_may_be_the_last(
    kind: str, open_coded: Callable[..., Loader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of images, and of indices alone, which fine-tuning from a cache of features iterates over."""
    fault_tolerance, beats = FaultTolerance(tmp_path, FaultToleranceConfig(), CPU, lambda: None), []
    monkeypatch.setattr(fault_tolerance, "heartbeat", beats.append)

    def batches(loader: Loader) -> Iterator[object]:
        return iter(loader) if kind == "images" else loader.index_batches()

    loader = _watched(fault_tolerance, open_coded, interruptible=True)
    for number, _ in enumerate(batches(loader), start=1):
        assert len(beats) == 2 * number
    assert number == len(loader)
    fault_tolerance._stop.name = "SIGTERM"
    with pytest.raises(Preempted, match="SIGTERM"):
        list(batches(loader))


def test_workers_that_the_signal_ended_too_are_not_an_input_error(
    open_coded: Callable[..., Loader], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`timeout` and some schedulers signal the whole group of processes."""

    def ended(_: Loader, *iteration: int) -> Iterator[object]:
        raise InputError("a worker process died")
        yield

    fault_tolerance = FaultTolerance(tmp_path, FaultToleranceConfig(), CPU, lambda: None)
    loader = _watched(fault_tolerance, open_coded)
    monkeypatch.setattr(type(loader._loader), "_deliveries", ended)
    with pytest.raises(InputError, match="a worker process died"):
        next(iter(loader))
    fault_tolerance._stop.name = "SIGTERM"
    with pytest.raises(Preempted, match="SIGTERM"):
        next(iter(loader))
