"""Whole runs with data that is changed or damaged, and with losses that are not finite."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fixres.fault_tolerance.checkpoints import CheckpointFiles
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT
from tests.fixres.fault_tolerance.fault_runs import Ended, Runs, checkpoints, runs_in, wait_until_stopped
from tests.fixres.runs import batches_of, metrics, same_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with runs_in(tmp_path_factory.mktemp("data")) as made:
        yield made


@pytest.fixture(scope="module")
def stored(runs: Runs) -> Path:
    """The recipe's training images as a .beton file, and the run "roc" on it, to which nothing happens."""
    folder = runs.folder / "stored"
    for split in ("train", "val"):
        dest = folder / f"{split}.beton"
        convert(runs.folder / "photos" / split, dest, ConversionConfig("roc", num_workers=0, progress=False))
    assert runs("roc", *_on(folder / "train.beton")).code == 0
    return folder / "train.beton"


def _on(stored: Path) -> tuple[object, ...]:
    return "--engine", "roc", "--num-workers", 1, "--data", stored.parent


def _replaced(path: Path, other: Path) -> None:
    os.replace(shutil.copy(other, path.with_name("new")), path)


def _touched(path: Path, _: Path) -> None:
    os.utime(path, ns=(1, 1))


def _removed(path: Path, _: Path) -> None:
    path.unlink()


@pytest.mark.parametrize(("step", "change"), [(6, _replaced), (3, _touched), (8, _removed), (9, _replaced)])
def test_data_that_changes_under_the_run(runs: Runs, stored: Path, step: int, change: object, tmp_path: Path) -> None:
    """The run ends and writes no checkpoint afterwards; resumed with the old file it has the same result."""
    run, old = runs.folder / f"changed-{step}", Path(shutil.copy2(stored, tmp_path / "old"))
    val = stored.with_name("val.beton")
    process = runs.start(run.name, *_on(stored), faults=(f"step:{step}:SIGSTOP",))
    wait_until_stopped(process)
    had = {path: path.read_bytes() for path in checkpoints(run)}
    assert callable(change)
    change(stored, val)
    os.kill(process, signal.SIGCONT)
    ended = runs.end()
    shutil.copy2(old, stored)
    assert ended.code == EXIT_INPUT and ended.names(str(stored), "was changed or replaced", "--resume auto")
    assert {path: path.read_bytes() for path in checkpoints(run)} == had
    assert runs.resumed(run.name, *_on(stored)).code == 0
    assert same_weights(run, runs.folder / "roc") and metrics(run) == metrics(runs.folder / "roc")


def test_data_that_was_changed_between_two_starts(runs: Runs, stored: Path, tmp_path: Path) -> None:
    old = Path(shutil.copy2(stored, tmp_path / "old"))
    assert runs("between", *_on(stored), faults=("step:6:SIGKILL",)).code == -signal.SIGKILL
    shutil.copyfile(stored.with_name("val.beton"), stored)
    ended = runs.resumed("between", *_on(stored))
    shutil.copyfile(old, stored)
    assert ended.code == EXIT_INPUT and ended.names("between", "the data is not the data with which the run began")
    assert runs.resumed("between", *_on(stored)).code == 0
    assert same_weights(runs.folder / "between", runs.folder / "roc")


@pytest.fixture
def spoiled(runs: Runs) -> Iterator[tuple[int, Path]]:
    """A step of the second epoch, and the file of an image in its batch, to be cut short before it."""
    pid = batches_of(runs.folder / "notes.0")[0][0]
    epoch = [batch[2] for batch in batches_of(runs.folder / "notes.0", pid) if batch[1] == 1]
    index = epoch[2][3]
    files = sorted((runs.folder / "photos" / "train").rglob("*.jpg"))
    content = files[index].read_bytes()
    yield 5 + 2, files[index]
    files[index].write_bytes(content)


def _spoil_in_the_middle(runs: Runs, run: str, spoiled: tuple[int, Path], *arguments: object) -> Ended:
    step, path = spoiled
    process = runs.start(run, *arguments, faults=(f"step:{step - 1}:SIGSTOP",))
    wait_until_stopped(process)
    path.write_bytes(path.read_bytes()[:400])
    os.kill(process, signal.SIGCONT)
    return runs.end()


def test_a_bad_sample_stops_the_run_which_can_be_resumed_once_it_is_repaired(
    runs: Runs, spoiled: tuple[int, Path]
) -> None:
    content = spoiled[1].read_bytes()
    ended = _spoil_in_the_middle(runs, "bad", spoiled)
    assert ended.code == EXIT_INPUT and ended.names(spoiled[1].name)
    again = runs.resumed("bad")
    assert again.code == EXIT_INPUT and again.names(spoiled[1].name)
    spoiled[1].write_bytes(content)
    assert runs.resumed("bad").code == 0
    assert same_weights(runs.folder / "bad", runs.folder / "whole")


def _num_bad(run: Path) -> int:
    return json.loads((run / "report.json").read_text())["variants"][0]["num_bad_samples"]


def test_a_replaced_sample_is_counted_once_however_often_the_run_is_killed(
    runs: Runs, spoiled: tuple[int, Path]
) -> None:
    """Once in each epoch; pictures for the report, taken anew at each start, do not count."""
    spoiled[1].write_bytes(spoiled[1].read_bytes()[:400])
    replace = ("--data.on_bad", "replace")
    assert runs("replaced", *replace).code == 0 and _num_bad(runs.folder / "replaced") == 2
    for step in (3, 5, 5):
        assert runs.resumed("replaced-often", *replace, faults=(f"step:{step}:SIGKILL",)).code == -signal.SIGKILL
    assert runs.resumed("replaced-often", *replace).code == 0
    assert _num_bad(runs.folder / "replaced-often") == 2
    assert same_weights(runs.folder / "replaced-often", runs.folder / "replaced")


def _finite(run: Path) -> bool:
    found = CheckpointFiles(run / "states").newest()
    return found is not None and all(
        bool(value.isfinite().all()) for value in found[1]["variants"]["fast"]["net"].values() if torch.is_tensor(value)
    )


def test_weights_that_are_no_numbers_end_the_run(runs: Runs) -> None:
    """It ends in one line; a file has the samples; the checkpoints are from before and intact."""
    ended = runs("poisoned", "--fault_tolerance.steps", 1, faults=("step:7:poison",))
    assert ended.code == EXIT_INPUT and ended.names(
        "fast: 48 px, epoch 2/2: the loss of step 2 is nan", "--resume auto"
    )
    (note,) = (runs.folder / "poisoned").glob("nonfinite-*-2.json")
    assert str(note) in ended.last
    (batch,) = json.loads(note.read_text())["batches"]
    seen = [batch for batch in batches_of(runs.folder / "notes.0") if batch[1] == 1]
    assert batch["indices"] == seen[2][2] and batch["step"] == 2
    assert _finite(runs.folder / "poisoned")
    assert runs.resumed("poisoned").code == 0
    assert same_weights(runs.folder / "poisoned", runs.folder / "whole")


def test_a_learning_rate_that_is_far_too_large(runs: Runs) -> None:
    ended = runs("huge", "--optim.lr", 1e38, "--optim.warmup_epochs", 0, "--fault_tolerance.steps", 1)
    assert ended.code == EXIT_INPUT and ended.names("not finite" if "weights" in ended.last else "the loss of step")
    assert not checkpoints(runs.folder / "huge") or _finite(runs.folder / "huge")


def test_weights_that_break_in_the_last_step_are_not_tested(runs: Runs) -> None:
    """No later loss could show it."""
    ended = runs("last", faults=("after-step:9:poison",))
    assert ended.code == EXIT_INPUT and ended.names(
        "fast: after epoch 2 its weights or BatchNorm statistics are not", "--resume auto"
    )
    assert _finite(runs.folder / "last") and not (runs.folder / "last" / "fast" / "trained.pt").exists()
    assert runs.resumed("last").code == 0 and same_weights(runs.folder / "last", runs.folder / "whole")


def test_statistics_that_break_end_the_run_after_the_epoch(runs: Runs) -> None:
    """Losses do not feel them: in training BatchNorm takes the batch's own."""
    ended = runs("statistics", faults=("after-step:3:spoil",))
    assert ended.code == EXIT_INPUT and ended.names("fast: after epoch 1", "BatchNorm statistics are not finite")
    assert runs.resumed("statistics").code == 0
    assert same_weights(runs.folder / "statistics", runs.folder / "whole")
