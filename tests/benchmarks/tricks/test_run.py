"""The command: what an interruption keeps, what is trained again, mistakes; a killed run."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from benchmarks.training.isolated_run import train_apart
from benchmarks.tricks import run as tricks
from fixres.config.parsing import as_plain, parse_recipe
from fixres.config.recipe import Recipe
from fixres.pipelines.spec import DataConfig, InputError
from tests.benchmarks.savings.savings_record import report, run
from tests.coded import write_coded_folder
from tests.fixres.runs import Server, all_end, lives

ROOT = Path(__file__).parents[3]


class _FakeTraining:
    """Writes artificial reports instead of training; ends with Ctrl-C before the training numbered `interrupt`."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.interrupt: int | None = None

    def __call__(self, recipe: Recipe) -> None:
        if len(self.trained) == self.interrupt:
            raise KeyboardInterrupt
        self.trained.append(f"{recipe.folder.parent.name} {recipe.seed}")
        made = report(run(recipe.seed, 0.74, 0.73), as_plain(recipe))
        made["variants"] = made["variants"][:1]
        recipe.folder.mkdir(parents=True)
        (recipe.folder / "report.json").write_text(json.dumps(made))
        (recipe.folder / "process.json").write_text('{"peak_resident_bytes": 5000000, "peak_gpu_bytes": null}')


class _NoData:
    engine_why = "no engine: artificial reports"

    def __init__(self, *_: Any) -> None: ...

    def prepare(self) -> _NoData:
        return self


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> _FakeTraining:
    fake = _FakeTraining()
    monkeypatch.setattr(tricks, "train_apart", fake)
    monkeypatch.setattr("fixres.pipelines.datasets.prepared.PreparedData", _NoData)
    write = staticmethod(lambda record, target: target.write_text(str(len(record["trainings"]))))
    monkeypatch.setattr(tricks.Ablation, "write_page", write)
    return fake


def _call(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["tricks.py", "--data", "scenes", "--output", str(folder), *map(str, words)])
    tricks.main()


def test_finished_trainings_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, training: _FakeTraining, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--seeds", "1,2", "--variant", "baseline,efficient,without-cosine"]
    training.interrupt = 4
    with pytest.raises(KeyboardInterrupt, match=r"4 of 6 trainings are finished, .*tricks\.html; the same command"):
        _call(monkeypatch, tmp_path, *words)
    kept = json.loads((tmp_path / "tricks.json").read_text())
    # All of a seed before the next one.
    assert training.trained == ["baseline 1", "efficient 1", "without-cosine 1", "baseline 2"]
    assert kept["partial"] is True and (tmp_path / "tricks.html").read_text() == "4"
    training.interrupt = None
    (tmp_path / "efficient" / "seed-1" / "process.json").unlink()  # killed after the report, before its memory
    (tmp_path / "efficient" / "seed-1").rename(tmp_path / "aside")
    _call(monkeypatch, tmp_path, *words, "--json", tmp_path / "made.json")
    assert training.trained[4:] == ["efficient 1", "efficient 2", "without-cosine 2"]
    whole = json.loads((tmp_path / "made.json").read_text())
    assert [(one["variant"], one["seed"]) for one in whole["trainings"]] == [
        (variant, seed) for seed in (1, 2) for variant in ("baseline", "efficient", "without-cosine")
    ]
    assert (whole["partial"], whole["kind"], whole["name"]) == (False, "tricks", "made")
    assert str(tmp_path) not in json.dumps(whole)
    # 100 images a second, a tenth of the time without data: 64 images in 0.576 s.
    assert whole["trainings"][0]["seconds_per_step"] == pytest.approx(0.576)
    assert "+ warm-up, zero gamma" in capsys.readouterr().out
    _call(monkeypatch, tmp_path, *words)
    assert len(training.trained) == 7


def test_a_training_without_its_peak_memory_is_not_finished(
    monkeypatch: pytest.MonkeyPatch, training: _FakeTraining, tmp_path: Path
) -> None:
    _call(monkeypatch, tmp_path, "--seeds", "1", "--variant", "baseline")
    (tmp_path / "baseline" / "seed-1" / "process.json").unlink()
    training.interrupt = 1
    with pytest.raises(KeyboardInterrupt, match="0 of 1 trainings are finished; the same"):
        _call(monkeypatch, tmp_path, "--seeds", "1", "--variant", "baseline")


def test_other_settings_are_refused_in_the_same_folder(
    monkeypatch: pytest.MonkeyPatch, training: _FakeTraining, tmp_path: Path
) -> None:
    _call(monkeypatch, tmp_path, "--seeds", "1", "--variant", "baseline")
    with pytest.raises(InputError, match=r"seed-1 was trained with optim.lr=0.4, but now optim.lr=0.5; use the same"):
        _call(monkeypatch, tmp_path, "--seeds", "1", "--variant", "baseline", "--optim.lr", "0.5")
    assert training.trained == ["baseline 1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "1,x"], r"seeds\[1\]=x must be a whole number"),
        (["--seed", "3"], "--seed has no effect here"),
        (["--variant", "tea"], "--variant tea is unknown"),
        (["--teacher", "nowhere.pt"], "teacher=nowhere.pt: no such file"),
        (["--config", "savings"], "trains one variant, called baseline"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, training: _FakeTraining, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _call(monkeypatch, tmp_path, *words)
    assert "\n" not in str(caught.value) and training.trained == []


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Words of the command: a baseline on 16 small images that takes seconds."""
    for split in ("train", "val"):
        write_coded_folder(tmp_path / "photos" / split, [(60 + 3 * i, 90 - 2 * i) for i in range(16)])
    variant = {"epochs": 2, "resolution": {"points": [[0, 64]], "multiple": 16}, "test_res": 64}
    data = {"engine": "torch", "num_workers": 0, "path": str(tmp_path / "photos"), "work_dir": str(tmp_path / "w")}
    kwargs = {"channels": [8, 16, 16, 24], "stem_type": "", "stem_width": 8, "avg_down": False, "zero_init_last": False}
    recipe = {
        "eval_every": 0,
        "sweep": [64],
        "data": data,
        "model": {"name": "resnet10t", "kwargs": kwargs},
        "optim": {"lr": 0.1, "batch_size": 4, "warmup_epochs": 0, "steps": {"milestones": [1]}},
        "variants": {"baseline": variant},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return ["--config", str(tmp_path / "tiny.yaml"), "--seeds", "1", "--variant", "fixres"]


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_and_is_resumed(
    command: list[str],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    process = server.start("--output", folder, *command, tool="benchmarks.tricks")
    give_up = time.monotonic() + 100
    while not (folder / "fixres" / "seed-1.yaml").exists() and lives(process) and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(1)  # in the middle of its imports
    children = psutil.Process(process).children(recursive=True)
    os.kill(process, signal.SIGKILL)
    assert server.end(process) == -signal.SIGKILL and children
    assert all_end((child.pid for child in children), 20)
    assert not (folder / "fixres" / "seed-1" / "report.json").exists()
    _call(monkeypatch, folder, *command)
    out, err = capfd.readouterr()
    assert "1 of 1: fixres, seed 1: top-1" in err and "+ FixRes" in out
    (one,) = json.loads((folder / "tricks.json").read_text())["trainings"]
    assert one["train_res_by_epoch"] == [48, 64] and one["test_res"] == 96 and one["finetune_seconds"] > 0
    assert 5e7 < one["peak_resident_bytes"] < psutil.virtual_memory().total and one["peak_gpu_bytes"] is None
    assert (folder / "tricks.html").read_text().count("data:image/png;base64,") >= 1


@pytest.mark.slow
def test_a_failed_training_is_reported(tmp_path: Path) -> None:
    recipe = replace(parse_recipe(["--config", "tricks/ablation"]), run_dir=tmp_path / "baseline" / "seed-1")
    with pytest.raises(
        InputError, match=r"seed-1 ended with code 2: .*nowhere.*; its output is in .*seed-1\.log"
    ) as caught:
        train_apart(replace(recipe, data=DataConfig(path=str(tmp_path / "nowhere"))))
    assert "\n" not in str(caught.value)
