"""The benchmark of the allocator: all works run, and both settings get to the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.docs.render import section
from benchmarks.harness.records import show
from benchmarks.training import allocator
from benchmarks.training.allocator_worker import Work, measured
from fixres.models import predictor
from fixres.reporting.records import read_record


class _Measurer:
    """Measures in this process."""

    def __init__(self, setting: str, data: Path) -> None:
        self._setting, self._data = setting, data

    def measured(self, work: Work) -> dict[str, Any]:
        found = measured(work, self._data)
        return found | {"images_per_second": 30.0 if self._setting == "kept" else 10.0}

    def kill(self) -> None:
        pass


def test_all_works_and_their_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_Measurer", _Measurer)
    monkeypatch.setattr(predictor, "PIXELS_OF_THREAD", predictor.PIXELS_OF_THREAD)
    sizes = {"test_res": [32], "train_res": [32], "batch_size": 4, "num_images": 12, "rounds": 1}
    target = tmp_path / "allocator.json"
    content = allocator.measure(
        allocator.AllocatorOptions(models=["test_resnet"], work_dir=tmp_path, json=target, **sizes)
    )
    show(content, section(content), target)
    results = read_record(target, "allocator")["results"]
    assert [one["kind"] for one in results] == ["evaluation", "features", "FixRes epoch", "training"]
    assert all(one["peak_ratio"] == pytest.approx(1, abs=0.2) and one["speedup"] == pytest.approx(3) for one in results)
    assert "| FixRes epoch | test_resnet | 32 | 3.00 (3.00 to 3.00) |" in section(content)
