"""The speed run: a rehearsal from class folders to a record, its table by hand, the energy, the script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from benchmarks.speedrun import energy as energy_module
from benchmarks.speedrun import run as speedrun
from benchmarks.speedrun.energy import EnergyMeter, energy, gpu_watts
from benchmarks.speedrun.tables import speedrun_table
from fixres.pipelines.spec import InputError
from tests.coded import write_coded_folder

SCRIPT = Path(__file__).resolve().parents[3] / "tools" / "speedrun.sh"
_RECIPE = {
    "name": "tiny",
    "sweep": [48],
    "model": {"name": "resnet10t", "kwargs": {"channels": [8, 16, 16, 24], "stem_width": 8}},
    "optim": {"lr": 0.4, "batch_size": 8, "warmup_epochs": 1},
    "variants": {
        "fast": {
            "epochs": 2,
            "resolution": {"points": [[0, 32]], "multiple": 16},
            "test_res": 48,
            "finetune": {"epochs": 1, "augmentation": "test"},
        }
    },
}


def options(tmp_path: Path, **changes: object) -> speedrun.SpeedrunOptions:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(_RECIPE))
    given = {"data": str(tmp_path / "photos"), "gpus": 0, "networks": ["resnet10t"], "config": str(recipe)}
    (tmp_path / "photos").mkdir(exist_ok=True)
    return speedrun.SpeedrunOptions(**given | {"work_dir": tmp_path / "work"} | changes)


def test_a_rehearsal_ends_in_a_record_and_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split, num in (("train", 24), ("val", 10)):
        write_coded_folder(tmp_path / "photos" / split, [(60 + 3 * i, 90 - 2 * i) for i in range(num)])
    found = speedrun.measure(options(tmp_path))
    assert found["kind"] == "speedrun" and found["recipe"] == "tiny" and not found["partial"]
    assert found["conversion"]["num_images"] == {"train": 24, "val": 10} and found["conversion"]["seconds"] > 0
    (result,) = found["results"]
    assert (result["network"], result["seed"], result["num_gpus"], result["resumed"]) == ("resnet10t", 1, 0, False)
    assert 0 <= result["top1"] <= 1 and result["test_res"] == 48 and result["train_res_by_epoch"] == [32, 32]
    assert 0 <= result["wait_seconds"] <= result["train_seconds"] < result["wall_seconds"]
    assert result["engine"] == "roc" and result["commit"] == found["environment"]["commit"]
    monkeypatch.setattr(speedrun, "convert", None)
    monkeypatch.setattr(speedrun, "_train", None)
    again = speedrun.measure(options(tmp_path))
    assert json.dumps(again["results"]) == json.dumps(found["results"]) and again["conversion"] == found["conversion"]


def test_mistakes_end_in_a_line(tmp_path: Path) -> None:
    for changes, words in (
        ({"gpus": -1}, "gpus=-1 must be 0"),
        ({"data": str(tmp_path / "nowhere")}, "nowhere does not exist; give ImageNet in a layout"),
        ({"config": "savings"}, "--config savings: it has no variant fast, only large, small, progressive"),
    ):
        with pytest.raises(InputError, match=words):
            options(tmp_path, **changes)


def test_several_gpus_are_started_by_the_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def run(call: list[str]) -> subprocess.CompletedProcess:
        calls.append(call)
        return subprocess.CompletedProcess(call, len(calls) - 1)

    monkeypatch.setattr(speedrun.subprocess, "run", run)
    speedrun._train(options(tmp_path, gpus=8), ["--seed", "1"])
    assert calls[0][1:] == ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "8", "-m", "fixres",
                            "train", "--seed", "1"]  # fmt: skip
    with pytest.raises(InputError, match="ended with exit code 1, see above"):
        speedrun._train(options(tmp_path, gpus=1), [])
    assert calls[1][0] == sys.executable and calls[1][1:] == ["-m", "fixres", "train"]


def test_the_table_adds_up() -> None:
    def result(seed: int, top1: float, seconds: float) -> dict:
        return {"network": "resnet50", "seed": seed, "num_gpus": 8, "top1": top1, "test_res": 224,
                "train_seconds": seconds, "finetune_seconds": 10.0, "wait_seconds": 5.0, "wall_seconds": seconds + 60,
                "kilowatt_hours": 2.0, "resumed": False}  # fmt: skip

    made = {"recipe": "r", "conversion": {"seconds": 300.0, "continued": False},
            "results": [result(1, 0.71, 1000.0), result(2, 0.73, 1100.0)]}  # fmt: skip
    table = speedrun_table(made)
    assert (
        "| resnet50 | 2 | 8 | 224 px | 72.00 ± 1.41 | 1060 ± 71 | 5 ± 0 | 1110 ± 71 | 300 | 1410 | 2.00 ± 0.00 |"
        in (table)
    )
    assert "does not count" not in table
    made["results"][0] |= {"resumed": True, "kilowatt_hours": None}
    assert "interrupted and resumed, so its wall-clock time is too small" in speedrun_table(made)
    assert speedrun_table(made).splitlines()[2].endswith("| 1410 |  |")


def test_energy_is_the_area_below_the_power(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert energy([(0.0, 100.0), (10.0, 300.0), (20.0, 300.0)]) == 2000.0 + 3000.0
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '100.5\\n200.0\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu_watts() == 300.5
    with EnergyMeter(period=0.01) as meter:
        pass
    assert meter.kilowatt_hours is not None and meter.kilowatt_hours >= 0
    smi.write_text("#!/bin/sh\necho '[N/A]'\n")
    assert gpu_watts() is None
    monkeypatch.setattr(energy_module, "gpu_watts", lambda: None)
    with EnergyMeter(period=0.01) as meter:
        pass
    assert meter.kilowatt_hours is None


def test_the_script_passes_everything_on(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$*"\n')
    python.chmod(0o755)
    call = {"env": os.environ | {"PYTHON": str(python)}, "capture_output": True, "text": True, "cwd": tmp_path}
    done = subprocess.run([SCRIPT, "photos", "--gpus", "8"], **call)
    assert done.stdout == f"-m benchmarks.speedrun --data {tmp_path}/photos --gpus 8\n"
    done = subprocess.run([SCRIPT, "scenes", "--gpus", "0"], **call)
    assert done.stdout == "-m benchmarks.speedrun --data scenes --gpus 0\n"
    assert subprocess.run([SCRIPT], **call).returncode == 2
