"""What surviving costs: costs that were put in are found again, and states are really written."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.docs.render import section
from benchmarks.harness.records import read_record
from benchmarks.scaling import fault_tolerance_overhead as survival_overhead
from benchmarks.scaling.fault_tolerance_overhead import write_share
from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.fault_tolerance import manager as fault_tolerance
from pipelines.spec import InputError


def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *words: object) -> dict[str, Any]:
    target = tmp_path / "survival.json"
    standard = ["--device", "cpu", "--precision", "fp32", "--folder", tmp_path / "states", "--json", target]
    standard += ["--seconds", 0.05, "--writes", 2]
    monkeypatch.setattr(sys, "argv", ["survival_overhead.py", *map(str, [*standard, *words])])
    try:
        survival_overhead.main()
    finally:
        content = read_record(target, "fault_tolerance") if target.exists() else {}
    return content


def test_writing_by_hand() -> None:
    assert write_share(1.0) == pytest.approx(1 / 121)  # two minutes between states
    assert write_share(5.0) == pytest.approx(5 / 505)  # a hundredth of the time at most
    assert write_share(1.0, FaultToleranceConfig(minutes=10)) == pytest.approx(1 / 601)


def test_a_slow_guard_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard that takes as long as some steps do must show up, in the windows and in the calls' own time."""
    seconds = 0.05
    monkeypatch.setattr(survival_overhead, "_NUM_CALLS", 20)
    monkeypatch.setattr(fault_tolerance.LossGuard, "add", lambda *_: time.sleep(seconds))
    content = call(monkeypatch, tmp_path, "--networks", "small:32:2", "--rounds", 3)
    (one,) = content["results"]
    assert one["calls_seconds"]["value"] == pytest.approx(seconds, rel=0.5)
    expected = seconds / (seconds + one["step_seconds"])
    assert one["watching"]["value"] == pytest.approx(expected, abs=0.25) and one["watching"]["value"] > 0.2
    assert one["together"]["value"] == pytest.approx(one["watching"]["value"] + one["write_share"])
    # 0.3 million weights, their momenta and the classifier's 1000 classes, 4 bytes each
    assert 3e6 < one["state_bytes"] < 5e6 and one["write_seconds"]["value"] > 0
    assert not list((tmp_path / "states").iterdir())
    assert "| small | 32 | 2 |" in section(content)


def test_ctrl_c_keeps_the_networks_that_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survival_overhead, "_NUM_CALLS", 20)
    original, seen = survival_overhead.Course.write, iter(range(100))

    def write(self: Any) -> float:
        if next(seen) == 2:  # the first of the second network
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(survival_overhead.Course, "write", write)
    with pytest.raises(KeyboardInterrupt, match="marked partial"):
        call(monkeypatch, tmp_path, "--networks", "small:32:2,small:64:2", "--rounds", 1)
    content = read_record(tmp_path / "survival.json")
    assert content["partial"] is True and [one["res"] for one in content["results"]] == [32]


@pytest.mark.parametrize("networks", ["small", "small:32:x", "small:4:2", "small:32:1", ""])
def test_mistakes_are_named(networks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"NAME:RESOLUTION:BATCH|for BatchNorm"):
        call(monkeypatch, tmp_path, "--networks", networks)


def test_a_state_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "state.pt")

    monkeypatch.setattr(fault_tolerance.StateFiles, "write", full)
    with pytest.raises(InputError, match="no state could be written there"):
        call(monkeypatch, tmp_path, "--networks", "small:32:2", "--rounds", 1)
