"""Step speeds: the record after Ctrl-C, and its table."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.docs.render import section
from benchmarks.harness.records import show
from benchmarks.training import train_step
from benchmarks.training.tables import train_step_table
from fixres.models.precision import Precision
from fixres.reporting.records import read_record
from fixres.training.step_speed import Steps

OPTIONS = {"batch_size": 2, "rounds": 2, "seconds": 0.01, "device": "cpu", "precision": "fp32", "compile": "no"}


def test_ctrl_c_keeps_the_results_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def timed(_self: Steps, resolution: int, _seconds: float) -> tuple[int, float]:
        if next(calls) == 5:  # the second round of the second network
            raise KeyboardInterrupt
        return resolution, 2.0

    monkeypatch.setattr(Steps, "timed", timed)
    monkeypatch.setattr(train_step, "peak_flops", lambda _: 1e12)
    target = tmp_path / "steps.json"
    options = {"models": ["resnet10t", "resnet14t"], "train_res": [32], **OPTIONS, "rounds": 4}
    with pytest.raises(KeyboardInterrupt, match=r"steps\.json, marked partial"):
        show(
            content := train_step.measure(train_step.TrainStepOptions(json=target, **options)), section(content), target
        )
    again = read_record(target, "train_step")
    assert again["partial"] is True and [one["model"] for one in again["results"]] == ["resnet10t", "resnet14t"]
    assert [one["images_per_second"] for one in again["results"]] == [16.0, 16.0]
    assert again["results"][0]["share_of_peak"] == pytest.approx(16e-3 * again["results"][0]["train_gflops_per_image"])
    assert "| resnet10t | 32 | 16 |" in section(again) and "Interrupted" in section(again)


def test_a_step_is_timed_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    options = train_step.TrainStepOptions(models=["resnet10t"], train_res=[32, 64], **OPTIONS)
    content = train_step.measure(options)
    small, large = content["results"]
    assert content["partial"] is False and all(one["images_per_second"] > 0 for one in (small, large))
    assert large["train_gflops_per_image"] == pytest.approx(4 * small["train_gflops_per_image"], rel=0.02)
    assert 0 < large["share_of_peak"] < 1.5
    assert torch.backends.cudnn.benchmark  # as in a run, or the ceiling would be too low


@pytest.mark.parametrize(("device", "least"), [("cpu", 2 * 2048**3), ("cuda", 2 * 8192**3)])
def test_the_peak_is_that_of_the_format_at_a_size_that_hides_the_call(
    monkeypatch: pytest.MonkeyPatch, device: str, least: int
) -> None:
    """With a device that logs its calls, and a clock that advances by a second with each call."""
    asked: list[tuple[int, torch.dtype, str]] = []

    def randn(*shape: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        asked.append((shape[0], dtype, device.type))
        return torch.ones(1, 1, dtype=dtype)

    ticks = iter(range(100))
    monkeypatch.setattr(torch, "randn", randn)
    monkeypatch.setattr(train_step.time, "perf_counter", lambda: float(next(ticks)))
    assert train_step.peak_flops(Precision("bf16", torch.device(device)), 5.0) == least
    assert asked == [(round((least / 2) ** (1 / 3)), torch.bfloat16, device)] * 2


def test_table_of_loader_cores() -> None:
    one = {"model": "m", "res": 128, "images_per_second": 50.0, "train_gflops_per_image": 1.0, "share_of_peak": 0.5}
    throughput = {
        "results": [{"engine": "roc", "res": 128, "images_per_second": 200.0}],
        "settings": {"threads": 2},
    }
    table = train_step_table({"results": [one]}, throughput)
    assert table.splitlines()[0].endswith("| cores for roc |")
    assert table.splitlines()[-1] == "| m | 128 | 50 | 1.0 | 0.50 | 0.5 |"
