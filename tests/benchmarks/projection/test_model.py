"""The projection compared with sums by hand, and its command line."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.projection.model import at_resolution, loaders_of, phases
from benchmarks.projection.scenario import Scenario
from benchmarks.training.tables import train_step_table
from fixres.pipelines.spec import InputError
from tools import estimate

STEP = {128: 1000.0, 224: 300.0}
LOADER = {128: 100.0, 224: 50.0}


def test_by_hand() -> None:
    train, finetune = phases(2, 10, STEP, LOADER, 6000, ((128, 3),), (224, 1))
    assert (train.seconds, train.limit) == (3 * 6000 / 1000, "loader")  # 10 cores give 1000, 2 devices could take 2000
    assert (finetune.seconds, finetune.limit) == (6000 / 500, "loader")  # 500 against 3 * 600
    (train,) = phases(1, 100, STEP, LOADER, 6000, ((224, 2),), (224, 0))
    assert (train.seconds, train.limit) == (2 * 6000 / 300, "network")


def test_between_and_beyond_measured_resolutions() -> None:
    assert at_resolution(STEP, 64, by_pixels=True) == 4000.0
    assert at_resolution(STEP, 448, by_pixels=True) == 75.0
    assert at_resolution(LOADER, 448, by_pixels=False) == 50.0
    assert at_resolution({100: 100.0, 400: 1.0}, 200, by_pixels=True) == pytest.approx(10.0)


@given(st.integers(32, 512), st.integers(32, 512))
def test_larger_is_never_faster(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert at_resolution(STEP, small, True) >= at_resolution(STEP, large, True) - 1e-9


def test_mistakes_are_named() -> None:
    for wrong in ({"gpus": 0}, {"cores": 0}, {"num_images": 0}, {"finetune_epochs": -1}):
        with pytest.raises(InputError, match="must be at least 1"):
            Scenario("net", **wrong)
    with pytest.raises(InputError, match="no measured speed"):
        at_resolution({}, 128, True)
    record = {"results": [{"engine": "roc", "res": 128, "images_per_second": 10.0}], "settings": {"threads": 2}}
    assert loaders_of(record, "roc") == {128: 5.0}
    with pytest.raises(InputError, match="engine='x' is not in the throughput record; it has roc"):
        loaders_of(record, "x")


def test_table_of_loader_cores() -> None:
    one = {"model": "m", "res": 128, "images_per_second": 50.0, "train_gflops_per_image": 1.0, "share_of_peak": 0.5}
    throughput = {
        "results": [{"engine": "roc", "res": 128, "images_per_second": 200.0}],
        "settings": {"threads": 2},
    }
    table = train_step_table({"results": [one]}, throughput)
    assert table.splitlines()[0].endswith("| cores for roc |")
    assert table.splitlines()[-1] == "| m | 128 | 50 | 1.0 | 0.50 | 0.5 |"


def _estimate(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["estimate.py", "--model", "resnet10t", "--images", "1000", *words])
    estimate.main()


@pytest.mark.slow
def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _estimate(monkeypatch, "--gpus", "1", "--cores", "2")
    output = capsys.readouterr().out
    assert output.startswith("Projected, not measured") and output.count("projected") >= 5


def test_a_mistake_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="resolution:epochs") as caught:
        _estimate(monkeypatch, "--small", "128x3")
    with pytest.raises(InputError, match="resolution=0 is not supported"):
        _estimate(monkeypatch, "--large", "0:5")
    with pytest.raises(InputError, match="-2 epochs at 224 px; use at least 1"):
        _estimate(monkeypatch, "--large", "224:-2")
    assert "\n" not in str(caught.value)
