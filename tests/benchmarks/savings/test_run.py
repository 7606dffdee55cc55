"""The command: what an interruption keeps, what is trained again, and one whole tiny run."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.harness.resume import command_line
from benchmarks.savings import run as savings
from fixres.config.parsing import as_plain, parse_recipe
from fixres.config.recipe import Recipe
from fixres.fault_tolerance.manager import Preempted
from fixres.pipelines.runtime.exit_codes import EXIT_PREEMPTED
from fixres.pipelines.spec import InputError
from tests.benchmarks.savings.savings_record import report, run
from tests.coded import write_coded_folder
from tests.fixres.runs import Server, lives

ROOT = Path(__file__).parents[3]
STEPS = str(ROOT / "benchmarks" / "results" / "train_step.json")


class _FakeExperiment:
    """Writes artificial reports instead of training; raises `end` at the seed `interrupt`."""

    def __init__(self) -> None:
        self.trained: list[int] = []
        self.interrupt: int | None = None
        self.end: BaseException = KeyboardInterrupt()

    def __call__(self, recipe: Recipe, *_: Any) -> None:
        recipe.folder.mkdir(parents=True, exist_ok=True)
        (recipe.folder / "metrics.jsonl").write_text("half a run\n")
        if recipe.seed == self.interrupt:
            raise self.end
        self.trained.append(recipe.seed)
        made = report(run(recipe.seed, 0.74, 0.73), as_plain(recipe))
        (recipe.folder / "report.json").write_text(json.dumps(made))


class _NoData:
    engine_why = "no engine: artificial reports"

    def __init__(self, *_: Any) -> None: ...

    def prepare(self) -> _NoData:
        return self

    def describe(self) -> dict[str, object]:
        return {}

    def check_unchanged(self) -> None: ...


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> _FakeExperiment:
    fake = _FakeExperiment()
    monkeypatch.setattr("fixres.experiment.experiment.run_experiment", fake)
    monkeypatch.setattr("fixres.pipelines.datasets.prepared.PreparedData", _NoData)
    # The real page takes a second.
    write = staticmethod(lambda record, target: target.write_text(f"page of {len(record['runs'])}"))
    monkeypatch.setattr(savings.Savings, "write_page", write)
    return fake


def _call(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: object) -> None:
    arguments = ["--output", folder, *words]
    monkeypatch.setattr(sys, "argv", ["savings.py", *map(str, arguments)])
    savings.main()


def test_finished_seeds_are_not_repeated(
    monkeypatch: pytest.MonkeyPatch, experiment: _FakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment.interrupt = 2
    with pytest.raises(
        KeyboardInterrupt, match=r"interrupted; 1 of 3 trainings are finished, .*savings\.html; the same"
    ):
        _call(monkeypatch, tmp_path, "--seeds", "1,2,3")
    kept = json.loads((tmp_path / "savings.json").read_text())
    assert [one["seed"] for one in kept["runs"]] == [1] and kept["partial"] is True
    assert (tmp_path / "savings.html").read_text() == "page of 1"
    experiment.interrupt = None
    _call(monkeypatch, tmp_path, "--seeds", "1,2,3", "--json", tmp_path / "made.json")
    assert experiment.trained == [1, 2, 3]
    whole = json.loads((tmp_path / "made.json").read_text())
    assert [one["seed"] for one in whole["runs"]] == [1, 2, 3] and whole["partial"] is False
    assert (whole["kind"], whole["name"], whole["version"]) == ("savings", "made", 3)
    assert "/somewhere" not in json.dumps(whole) and str(tmp_path) not in json.dumps(whole)
    out = capsys.readouterr().out
    assert "small + FixRes" in out and "training speed-up 3.00" in out
    _call(monkeypatch, tmp_path, "--seeds", "4,2")
    assert experiment.trained == [1, 2, 3, 4]
    assert [one["seed"] for one in json.loads((tmp_path / "savings.json").read_text())["runs"]] == [4, 2]


def test_a_projection_is_kept_in_the_record(
    monkeypatch: pytest.MonkeyPatch, experiment: _FakeExperiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _call(monkeypatch, tmp_path, "--seeds", "1", "--project", "resnet50", "--step-speed", "224:900")
    projection = json.loads((tmp_path / "savings.json").read_text())["projection"]
    assert projection["images_per_second"]["step"] == {"224": 900.0} and projection["scenario"]["gpus"] == 8
    assert "given with --step-speed, not measured here" in capsys.readouterr().out


def test_before_the_first_seed_there_is_no_record(
    monkeypatch: pytest.MonkeyPatch, experiment: _FakeExperiment, tmp_path: Path
) -> None:
    experiment.interrupt = 1
    with pytest.raises(KeyboardInterrupt, match="0 of 1 trainings are finished; the same command resumes"):
        _call(monkeypatch, tmp_path, "--seeds", "1")
    assert not (tmp_path / "savings.html").exists() and not (tmp_path / "savings.json").exists()


def test_other_settings_are_refused_in_the_same_folder(
    monkeypatch: pytest.MonkeyPatch, experiment: _FakeExperiment, tmp_path: Path
) -> None:
    _call(monkeypatch, tmp_path, "--seeds", "1")
    with pytest.raises(InputError, match=r"seed-1 was trained with optim.lr=0.8, but now optim.lr=0.5; use the same"):
        _call(monkeypatch, tmp_path, "--seeds", "1", "--optim.lr", "0.5")
    (tmp_path / "seed-1" / "report.json").write_text("{")
    with pytest.raises(InputError, match="is damaged; remove its folder"):
        _call(monkeypatch, tmp_path, "--seeds", "1")
    assert experiment.trained == [1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "1,x"], r"seeds\[1\]=x must be a whole number"),
        (["--seed", "3"], "--seed has no effect here"),
        (["--target", "74"], "target=74 must be a fraction"),
        (["--color", "red"], "unknown option --color, did you mean --augment.color"),
        (["--variants.large", "null"], "a comparison needs large or baseline"),
        (["--variants.small", "null", "--variants.progressive", "null"], "and one more"),
        (["--seeds=-1"], "seed=-1"),
        (["--project", "resnet50", "--step-speed", "224"], "step_speed"),
        (["--project", "resnet50", "--step-record", STEPS], "measured on CPU AMD EPYC, not on a GPU"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch, experiment: _FakeExperiment, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _call(monkeypatch, tmp_path, *words)
    assert "\n" not in str(caught.value) and experiment.trained == []


@pytest.mark.parametrize("name", ["savings", "savings_scenes"])
def test_recipes_train_the_three_variants_at_equal_epochs(name: str) -> None:
    variants = parse_recipe(["--config", name]).variants
    assert list(variants) == ["large", "small", "progressive"]
    assert len({variant.epochs for variant in variants.values()}) == 1
    assert [variant.finetune is not None for variant in variants.values()] == [False, True, True]


def test_the_command_is_recorded_without_paths(tmp_path: Path) -> None:
    words = ["--config", f"{tmp_path}/own.yaml", "--data", str(tmp_path), f"--output={tmp_path}", "--seeds=1,2"]
    assert command_line("benchmarks.savings", [*words, "--note", "a b", "--optim.lr", "0.2"]) == (
        "python -m benchmarks.savings --config own.yaml --data FOLDER --seeds 1,2 --optim.lr 0.2"
    )


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A recipe of three variants on 16 small images that takes seconds."""
    for split in ("train", "val"):
        write_coded_folder(tmp_path / "photos" / split, [(60 + 3 * i, 90 - 2 * i) for i in range(16)])
    finetuned = {"epochs": 2, "test_res": 48, "finetune": {"epochs": 1}}
    recipe = {
        "eval_every": 1,
        "sweep": [48],
        "data": {
            "engine": "torch",
            "num_workers": 0,
            "path": str(tmp_path / "photos"),
            "work_dir": str(tmp_path / "w"),
        },
        "model": {"name": "resnet10t", "kwargs": {"channels": [8, 16, 16, 24], "stem_width": 8}},
        "optim": {"lr": 0.1, "batch_size": 4, "warmup_epochs": 0},
        "variants": {
            "baseline": None,
            "large": {"epochs": 2, "resolution": {"points": [[0, 64]]}, "test_res": 64},
            "small": {**finetuned, "resolution": {"points": [[0, 32]]}},
            "progressive": {**finetuned, "resolution": {"points": [[0, 32], [1, 64]]}},
        },
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return tmp_path / "tiny.yaml"


@pytest.mark.slow
def test_a_killed_run_is_resumed_and_ends_in_a_page(
    tiny: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, words = tmp_path / "run", ["--config", tiny, "--seeds", "1,2"]
    process = server.start("--output", folder, *words, tool="benchmarks.savings")
    give_up = time.monotonic() + 120
    while not (folder / "savings.json").exists() and lives(process) and time.monotonic() < give_up:
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    assert server.end(process) == -signal.SIGKILL  # it was killed before its end
    first = (folder / "seed-1" / "report.json").read_bytes()
    assert not (folder / "seed-2" / "report.json").exists()
    _call(monkeypatch, folder, *words)
    out, err = capfd.readouterr()
    assert "seed 1:" not in err and "1 of 1: seed 2: trained" in err
    assert (folder / "seed-1" / "report.json").read_bytes() == first
    record = json.loads((folder / "savings.json").read_text())
    assert [one["seed"] for one in record["runs"]] == [1, 2]
    _check_variants(record["runs"][0], json.loads(first))
    assert re.search(r"^small \+ FixRes +32 px +48 px", out, re.MULTILINE)
    html = (folder / "savings.html").read_text()
    assert html.count("data:image/png;base64,") == 4 and "progressive + FixRes" in html


def _check_variants(kept: dict[str, Any], full: dict[str, Any]) -> None:
    assert [variant["name"] for variant in kept["variants"]] == ["large", "small", "progressive"]
    assert [list(variant["sweep_before"]) for variant in kept["variants"]] == [["32", "48", "64"]] * 3
    for one, variant in zip(kept["variants"], full["variants"], strict=True):
        assert one["train_seconds"] == variant["train_seconds"] and one["curve"][-1][1] == variant["train_seconds"]
        assert [point[0] for point in one["curve"]] == [1, 2]
        assert sum(one["test_seconds"].values()) < variant["evaluate_seconds"]
        assert (variant["finetune_seconds"] > 0) == (variant["name"] != "large") == bool(one["sweep_after"])


def test_a_preempted_run_ends_with_its_exit_code_and_is_resumed(
    monkeypatch: pytest.MonkeyPatch, experiment: _FakeExperiment, tmp_path: Path
) -> None:
    experiment.interrupt, experiment.end = 2, Preempted("SIGUSR1")
    left: list[tuple[str, int]] = []
    monkeypatch.setattr("benchmarks.harness.resume.leave", lambda *end: left.append(end) or sys.exit(end[1]))
    with pytest.raises(SystemExit):
        _call(monkeypatch, tmp_path, "--seeds", "1,2")
    assert left[0][1] == EXIT_PREEMPTED
    assert "ended by SIGUSR1; 1 of 2 trainings are finished" in left[0][0] and "--resume auto" in left[0][0]
    experiment.interrupt = None
    # Settings of fault tolerance do not make it another training.
    _call(monkeypatch, tmp_path, "--seeds", "1,2", "--resume", "auto", "--fault_tolerance.minutes", 9)
    assert experiment.trained == [1, 2]
