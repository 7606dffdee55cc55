"""The overhead of fault tolerance: an added cost is measured, and checkpoints are really written."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.docs.render import section
from benchmarks.scaling import fault_tolerance_overhead as overhead
from benchmarks.scaling.fault_tolerance_overhead import write_share
from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.fault_tolerance import manager as fault_tolerance
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record


def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: object) -> dict[str, Any]:
    target = tmp_path / "fault_tolerance.json"
    standard = ["--device", "cpu", "--precision", "fp32", "--work-dir", tmp_path / "checkpoints", "--json", target]
    standard += ["--seconds", 0.05, "--writes", 2]
    monkeypatch.setattr(sys, "argv", ["fault_tolerance_overhead.py", *map(str, [*standard, *words])])
    try:
        overhead.main()
    finally:
        content = read_record(target, "fault_tolerance") if target.exists() else {}
    return content


def test_writing_by_hand() -> None:
    assert write_share(1.0) == pytest.approx(1 / 121)  # two minutes between checkpoints
    assert write_share(5.0) == pytest.approx(5 / 505)  # at most a hundredth of the time
    assert write_share(1.0, FaultToleranceConfig(minutes=10)) == pytest.approx(1 / 601)


def test_a_slow_guard_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that takes as long as some steps must be visible, in the windows and in the time of the calls."""
    seconds = 0.05
    monkeypatch.setattr(overhead, "_NUM_CALLS", 20)
    monkeypatch.setattr(fault_tolerance.LossGuard, "add", lambda *_: time.sleep(seconds))
    content = call(monkeypatch, tmp_path, "--networks", "small:32:2", "--rounds", 3)
    (one,) = content["results"]
    assert one["calls_seconds"]["value"] == pytest.approx(seconds, rel=0.5)
    expected = seconds / (seconds + one["step_seconds"])
    assert one["step_overhead"]["value"] == pytest.approx(expected, abs=0.25) and one["step_overhead"]["value"] > 0.2
    assert one["total_overhead"]["value"] == pytest.approx(one["step_overhead"]["value"] + one["write_share"])
    # 0.3 million weights, their momenta and the classifier's 1000 classes, 4 bytes each
    assert 3e6 < one["checkpoint_bytes"] < 5e6 and one["write_seconds"]["value"] > 0
    assert not list((tmp_path / "checkpoints").iterdir())
    assert "| small | 32 | 2 |" in section(content)


def test_ctrl_c_keeps_the_networks_that_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "_NUM_CALLS", 20)
    original, seen = overhead.Course.write, iter(range(100))

    def write(self: Any) -> float:
        if next(seen) == 2:  # the first of the second network
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(overhead.Course, "write", write)
    with pytest.raises(KeyboardInterrupt, match="marked partial"):
        call(monkeypatch, tmp_path, "--networks", "small:32:2,small:64:2", "--rounds", 1)
    content = read_record(tmp_path / "fault_tolerance.json")
    assert content["partial"] is True and [one["res"] for one in content["results"]] == [32]


@pytest.mark.parametrize("networks", ["small", "small:32:x", "small:4:2", "small:32:1", ""])
def test_mistakes_are_named(networks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"NAME:RESOLUTION:BATCH|for BatchNorm"):
        call(monkeypatch, tmp_path, "--networks", networks)


def test_a_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "state.pt")

    monkeypatch.setattr(fault_tolerance.CheckpointFiles, "write", full)
    with pytest.raises(InputError, match="no checkpoint could be written there"):
        call(monkeypatch, tmp_path, "--networks", "small:32:2", "--rounds", 1)
