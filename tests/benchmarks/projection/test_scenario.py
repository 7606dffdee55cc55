"""The origin of a projection's speeds, and its sums compared with sums by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.projection import scenario
from benchmarks.projection.scenario import Scenario, project, step_speeds
from fixres.pipelines.spec import InputError

HERE = {"cpu": "this", "num_cores": 2, "gpu": None}


def _record(folder: Path, name: str, gpu: str | None, speed: float, cpu: str = "that") -> None:
    results = [{"model": "net", "res": 224, "images_per_second": speed}]
    content = {"kind": "train_step", "results": results, "environment": {"cpu": cpu, "gpu": gpu}}
    (folder / f"{name}.json").write_text(json.dumps(content))


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of records on a made machine without a GPU, where a quick measurement gives 1 image a second."""
    monkeypatch.setattr(scenario, "RESULTS", tmp_path)
    monkeypatch.setattr(scenario, "capture", lambda: dict(HERE))
    quick = {"results": [{"model": name, "res": 224, "images_per_second": 1.0} for name in ("net", "other")]}
    monkeypatch.setattr(scenario, "quick_record", lambda *_: quick)
    return tmp_path


def test_without_a_record_steps_are_measured(results: Path) -> None:
    assert step_speeds("net") == ({224: 1.0}, "measured now on this, 2 cores as one device, no GPU")
    _record(results, "a", None, 5.0)  # another CPU's
    assert step_speeds("net")[0] == {224: 1.0}
    assert step_speeds("net", any_device=True) == ({224: 5.0}, "recorded on that")


def test_a_record_of_a_gpu_serves_machines_without(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _record(results, "a", None, 5.0, cpu="this")
    _record(results, "b", "big", 500.0)
    assert step_speeds("net") == ({224: 500.0}, "recorded on big")
    assert step_speeds("net", measure=True)[0] == {224: 1.0}
    assert step_speeds("other")[0] == {224: 1.0}
    monkeypatch.setattr(scenario, "capture", lambda: HERE | {"gpu": "small"})
    assert step_speeds("net") == ({224: 1.0}, "measured now on small")


def _throughput() -> dict[str, Any]:
    speeds = {"dali": 20.0, "roc": 100.0}
    results = [{"engine": name, "res": 100, "images_per_second": 2 * speed} for name, speed in speeds.items()]
    return {"kind": "throughput", "results": results, "settings": {"threads": 2}, "environment": {"cpu": "that"}}


def test_sums_by_hand(results: Path) -> None:
    (results / "throughput.json").write_text(json.dumps(_throughput()))
    runs = {"large": ((200, 4),), "small": ((100, 4),), "test_res": 200, "finetune_epochs": 1}
    found = project(Scenario("net", 3600, gpus=2, cores=10, **runs), {100: 400.0, 200: 100.0}, "made")
    # large: 2 devices give 200 images/s, 10 cores of dali as many, of roc 1000. small: 800 against 200 and 1000.
    # Fine-tuning at 200 px: 3 * 200 against 200 and 1000.
    assert {title: round(3600 * hours) for title, hours in found.hours().items()} == {
        "large, engine dali": 4 * 18,
        "large, engine roc": 4 * 18,
        "small, then fine-tuned, engine dali": 4 * 18 + 18,
        "small, then fine-tuned, engine roc": 18 + 6,
    }
    text = found.text()
    assert text.startswith("Projected, not measured: net, 3600 images, 2 devices, 10 cores.")
    assert "small with roc takes 0.33 of the time of large with dali (projected)" in text
    assert found.as_json()["projected"] is True and "epoch(r) = images / min(" in found.as_json()["formula"]


def test_without_loader_speeds_the_error_names_the_remedy(results: Path) -> None:
    with pytest.raises(InputError, match=r"no throughput record .*python -m benchmarks\.throughput"):
        project(Scenario("net"), {224: 1.0}, "made")


@pytest.mark.parametrize("sides", [{"large": ((0, 4),)}, {"small": ((128, 4), (-1, 2))}, {"test_res": 0}])
def test_impossible_resolutions_are_named(sides: dict[str, Any]) -> None:
    """Before anything is measured; a side of 0 would end in a division by it."""
    with pytest.raises(InputError, match=r"resolution=(0|-1) is not supported"):
        Scenario("net", **sides)
