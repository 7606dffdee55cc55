"""Where a projection's speeds come from, what it refuses, and its sums compared with sums by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from fixres.cli.main import call
from fixres.pipelines.spec import InputError
from fixres.projection.options import EstimateOptions
from fixres.projection.projection import estimate
from fixres.projection.speeds import loader_speeds, step_speeds
from fixres.training import step_speed
from fixres.training.step_speed import measure_steps

GPU = {"cpu": "that", "num_cores": 4, "gpu": "big", "device": "cuda:0", "commit": "0123456789"}
CPU = GPU | {"device": "cpu"}  # a machine with a GPU on which the CPU was measured


def _steps(folder: Path, environment: dict[str, Any]) -> Path:
    results = [{"model": "net", "res": 224, "images_per_second": 500.0}]
    return _record(folder / "steps.json", kind="train_step", results=results, environment=environment)


def _throughput(folder: Path, **changed: Any) -> Path:
    speeds = {"dali": 20.0, "roc": 100.0}
    results = [{"engine": name, "res": 100, "images_per_second": 2 * speed} for name, speed in speeds.items()]
    settings = {"threads": 2, "device": "cpu"}
    values = {"kind": "throughput", "results": results, "settings": settings, "environment": CPU, **changed}
    return _record(folder / "loaders.json", **values)


def _record(path: Path, **fields: Any) -> Path:
    path.write_text(json.dumps({"version": 3, **fields}))
    return path


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_both_options_are_named() -> None:
    with pytest.raises(InputError, match=r"has no GPU, so .*--step-speed 128:2500,.* or --step-record FILE") as caught:
        estimate(EstimateOptions(gpus=8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("environment", [CPU, CPU | {"gpu": None}, {"cpu": "that"}])
def test_a_cpus_speed_is_never_a_gpus(tmp_path: Path, environment: dict[str, Any]) -> None:
    path = _steps(tmp_path, environment)
    with pytest.raises(InputError, match=r"measured on CPU that, not on a GPU; give --step-speed .*--device cpu"):
        step_speeds(EstimateOptions(model="net", step_record=path))
    found = step_speeds(EstimateOptions(model="net", step_record=path, device="cpu"))
    assert found.known == {224: 500.0} and "measured on that" in found.origin


def test_a_gpus_record(tmp_path: Path) -> None:
    path = _steps(tmp_path, GPU)
    found = step_speeds(EstimateOptions(model="net", step_record=path))
    assert (found.known, found.origin) == ({224: 500.0}, f"measured on big, commit 0123456 ({path})")
    with pytest.raises(InputError, match="measured on GPU big; use --device cuda"):
        step_speeds(EstimateOptions(model="net", step_record=path, device="cpu"))
    with pytest.raises(InputError, match=r"model='other' is not in step_record=.*; it has net"):
        step_speeds(EstimateOptions(model="other", step_record=path))


def test_given_speeds_are_named_as_given() -> None:
    found = step_speeds(EstimateOptions(step_speed={224: 900.0}))
    assert (found.known, found.origin) == ({224: 900.0}, "given with --step-speed, not measured here")


def test_steps_are_measured_on_the_device_that_is_projected(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_model: str, resolutions: list[int], device: torch.device) -> dict[int, float]:
        return dict.fromkeys(resolutions, {"cuda": 9.0, "cpu": 1.0}[device.type])

    monkeypatch.setattr(step_speed, "measure_steps", measure)
    monkeypatch.setattr("fixres.observability.environment.capture", lambda: GPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for device, speed, place in (("cuda", 9.0, "big"), ("cpu", 1.0, "that, 4 cores")):
        environment = {key: value for key, value in GPU.items() if key != "device"}
        monkeypatch.setattr("fixres.observability.environment.capture", lambda found=environment: found)
        found = step_speeds(EstimateOptions(device=device))
        assert found.known == {128: speed, 160: speed, 224: speed}
        assert found.origin == f"measured on {place}, commit 0123456 (now, in a few seconds)"


def test_a_short_measurement() -> None:
    found = measure_steps("resnet10t", [32, 64], torch.device("cpu"))
    assert found[32] > found[64] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_is_measured() -> None:
    found = step_speeds(EstimateOptions(model="resnet10t"))
    assert torch.cuda.get_device_name() in found.origin and found.known[128] > found.known[224] > 0


def test_loader_speeds_of_the_package() -> None:
    found = loader_speeds()
    assert found["roc"].at(128) > 5 * found["dali"].at(128)
    assert "AMD EPYC, 2 cores, commit ced8a90 (the record of this package)" in found["roc"].origin


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"results": [{"engine": "x", "res": 1, "images_per_second": 1}]}, "engine dali is not in .*; it has x"),
        ({"settings": {"threads": 2, "device": "cuda"}}, "GPUs decoded there; measure CPU cores with --device cpu"),
        ({"settings": {}}, r"loaders.json is not a complete record of kind 'throughput' \(KeyError"),
        ({"environment": None}, "not a complete record"),
        ({"kind": "train_step"}, "kind 'throughput' is needed"),
    ],
)
def test_other_loader_records_are_refused(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        loader_speeds(_throughput(tmp_path, **changed))
    with pytest.raises(InputError, match="does not exist"):
        loader_speeds(tmp_path / "none.json")


def test_sums_by_hand(tmp_path: Path) -> None:
    given = {"step_speed": {100: 400.0, 200: 100.0}, "loader_record": _throughput(tmp_path)}
    runs = {"large": {200: 4}, "small": {100: 4}, "test_res": 200, "finetune_epochs": 1}
    found = estimate(EstimateOptions(model="net", num_images=3600, gpus=2, cores=10, **given, **runs))
    # large: 2 devices give 200 images/s, 10 cores of dali as many, of roc 1000. small: 800 against 200 and 1000.
    # Fine-tuning at 200 px: 3 * 200 against 200 and 1000.
    assert {title: round(3600 * hours) for title, hours in found.hours().items()} == {
        "large, engine dali": 4 * 18,
        "large, engine roc": 4 * 18,
        "small, then fine-tuned, engine dali": 4 * 18 + 18,
        "small, then fine-tuned, engine roc": 18 + 6,
    }
    text, content = found.text(), found.as_json()
    assert text.startswith("Projected, not measured: net, 3600 images, 2 GPUs, 10 loader cores.\n")
    assert "Steps of 1 GPU, images/s: 400 at 100 px, 100 at 200 px; given with --step-speed, not measured here." in text
    assert "roc on 1 core, images/s: 100 at 100 px, 100 at 200 px (taken from 100 px); measured on that, 4" in text
    assert "small with roc takes 0.33 of the time of large with dali (projected)" in text
    assert content["projected"] is True and content["scenario"]["large"] == [(200, 4)]
    assert content["images_per_second"]["step"] == {100: 400.0, 200: 100.0}
    assert content["origins"]["step"] == "given with --step-speed, not measured here"


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--step-speed", "224:900", "--gpus", "8", "--json", str(tmp_path / "x.json")]
    call("estimate", words)
    assert capsys.readouterr().out.startswith("Projected, not measured: resnet50, 1281167 images, 8 GPUs, 96")
    assert json.loads((tmp_path / "x.json").read_text())["images_per_second"]["step"] == {"224": 900.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--small", "128x3"], "small=128x3 must be"),
        (["--step-speed", "224:fast"], "step_speed.*fast must be a number"),
        (["--images", "3"], "unknown option --images, did you mean --num-images"),
        (["--gpus", "0"], "gpus=0 must be at least 1"),
    ],
)
def test_mistakes_in_the_call_are_one_line(words: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call("estimate", words)
    assert "\n" not in str(caught.value)
