"""Whole runs with signals, changed clocks, locks, stalls, and kills at any point."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, EXIT_INTERRUPT, EXIT_PREEMPTED, EXIT_STALLED
from tests.fixres.fault_tolerance.fault_runs import Runs, checkpoints, runs_in, wait_until_stopped
from tests.fixres.runs import Server, batches_of, metrics, same_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with runs_in(tmp_path_factory.mktemp("process")) as made:
        yield made


def _same_as_whole(runs: Runs, run: Path) -> bool:
    return same_weights(run, runs.folder / "whole") and metrics(run) == metrics(runs.folder / "whole")


def test_an_interrupted_run_says_how_to_resume(runs: Runs) -> None:
    ended = runs("interrupted", faults=("step:6:SIGINT",))
    assert ended.code == EXIT_INTERRUPT and ended.names("interrupted; the same call with --resume auto continues")
    assert runs.resumed("interrupted").code == 0 and _same_as_whole(runs, runs.folder / "interrupted")


def test_interrupted_before_the_first_checkpoint_it_promises_nothing(runs: Runs) -> None:
    ended = runs("early", faults=("step:1:SIGINT",))
    assert ended.code == EXIT_INTERRUPT and ended.names("interrupted") and "--resume" not in ended.last
    assert runs.resumed("early").code == 0 and _same_as_whole(runs, runs.folder / "early")


@pytest.mark.parametrize(
    "moment",
    ["before:fixres.experiment.variant_parts:Evaluator.sweep", "before:fixres.experiment.final_evaluation:finetune"],
)
def test_a_signal_during_evaluation_or_fine_tuning(runs: Runs, moment: str) -> None:
    """The interrupted step is repeated; the training is not."""
    run = runs.folder / moment.split(":")[-1]
    ended = runs(run.name, faults=(f"{moment}:SIGTERM",))
    assert ended.code == EXIT_PREEMPTED and ended.names("ended by SIGTERM", "--resume auto")
    assert not (run / "fast" / "finetuned.pt").exists()
    num = len(batches_of(runs.folder / "notes.0"))
    assert runs.resumed(run.name).code == 0 and _same_as_whole(runs, run)
    assert len(batches_of(runs.folder / "notes.0")) == num


@pytest.mark.parametrize(
    ("moment", "not_again"),
    [
        # trained and evaluated
        ("before:fixres.experiment.final_evaluation:_finetune", "fixres.experiment.final_evaluation:_evaluate_trained"),
        # fine-tuned, not yet evaluated
        ("after:fixres.experiment.final_evaluation:_finetune", "fixres.experiment.final_evaluation:_finetune"),
        # all done
        ("before:fixres.experiment.final_evaluation:_result", "fixres.experiment.variant_parts:Evaluator.sweep"),
    ],
)
def test_finished_steps_of_a_final_evaluation_are_not_repeated(runs: Runs, moment: str, not_again: str) -> None:
    """The resumed run is killed if it repeats the step."""
    run = runs.folder / re.sub(r"\W", "-", f"done-{moment}")
    ended = runs(run.name, faults=(f"{moment}:SIGTERM",))
    assert ended.code == EXIT_PREEMPTED and ended.names("ended by SIGTERM", "--resume auto")
    assert runs.resumed(run.name, faults=(f"before:{not_again}:SIGKILL",)).code == 0
    assert _same_as_whole(runs, run)


def test_the_clock_may_be_set_back(runs: Runs) -> None:
    """Training checkpoints are ordered by their numbers, not by times; files may also be from the future."""
    faults = ("clock:3",)
    assert runs("clock", faults=(*faults, "step:7:SIGKILL")).code == -signal.SIGKILL
    old, new = checkpoints(runs.folder / "clock")
    os.utime(old, (2e9, 2e9))
    os.utime(new, (1e9, 1e9))
    num = len(batches_of(runs.folder / "notes.0"))
    assert runs.resumed("clock", faults=faults).code == 0 and _same_as_whole(runs, runs.folder / "clock")
    first = batches_of(runs.folder / "notes.0")[num]
    assert (
        first[1] == 1 and first[2] == batches_of(runs.folder / "notes.0")[6][2]
    )  # the newest checkpoint has 6 updates


def test_a_loader_without_progress_ends_the_run(runs: Runs) -> None:
    ended = runs("stalled", "--fault_tolerance.stall_seconds", 2, faults=("silent:8",))
    assert ended.code == EXIT_STALLED
    stacks = runs.folder / "stalled" / "stalled-rank0.txt"
    assert re.search(rf"rank 0 has been waiting for data at 48 px .*stacks: {re.escape(str(stacks))}", ended.last)
    assert "faults.py" in stacks.read_text() and "in deliveries" in stacks.read_text()
    assert runs.resumed("stalled").code == 0 and _same_as_whole(runs, runs.folder / "stalled")


def test_a_second_run_in_the_same_folder_is_refused(runs: Runs) -> None:
    """Even one that would move the folder aside. The first one is named and not disturbed."""
    process = runs.start("two", faults=("step:6:SIGSTOP",))
    wait_until_stopped(process)
    had = {path: path.read_bytes() for path in (runs.folder / "two").rglob("*") if path.is_file()}
    other = Server(runs.folder / "other")
    (runs.folder / "other").mkdir()
    other.start("--config", runs.recipe, "--output", runs.folder / "two")
    assert other.end() == EXIT_INPUT
    last = other.errors().splitlines()[-1]
    assert last.startswith("train.py: ") and f"another process ({process} on " in last
    assert had == {path: path.read_bytes() for path in (runs.folder / "two").rglob("*") if path.is_file()}
    os.kill(process, signal.SIGCONT)
    assert runs.end().code == 0 and _same_as_whole(runs, runs.folder / "two")


@pytest.mark.parametrize(
    "moment",
    [
        "before:fixres.experiment.run_folder:_move_aside",
        "after:fixres.experiment.run_folder:_move_aside",
        "before:fixres.experiment.run_folder:save_recipe",
        "after:fixres.experiment.run_folder:save_recipe",
        "step:1",
    ],
)
def test_killed_while_it_replaces_an_older_run(runs: Runs, moment: str) -> None:
    """The older run is kept, in place or moved aside; the next start is a new run, or shows the older one again."""
    run = runs.folder / re.sub(r"\W", "-", moment)
    shutil.copytree(runs.folder / "whole", run)
    had = {path.relative_to(run): path.read_bytes() for path in run.rglob("*.pt")}
    num = len(batches_of(runs.folder / "notes.0"))
    assert runs(run.name, faults=(f"{moment}:SIGKILL",)).code == -signal.SIGKILL
    assert runs.resumed(run.name).code == 0 and _same_as_whole(runs, run)
    older = run if moment.startswith("before:fixres.experiment.run_folder:_move") else run.with_name(f"{run.name}.1")
    assert had.items() <= {path.relative_to(older): path.read_bytes() for path in older.rglob("*.pt")}.items()
    assert not run.with_name(f"{run.name}.2").exists()
    trained = len(batches_of(runs.folder / "notes.0")) - num
    assert trained == (0 if older == run else 12 if moment == "step:1" else 10)


def test_the_folder_of_a_run_that_stalled_at_once_can_be_used(runs: Runs) -> None:
    run = runs.folder / "still"
    run.mkdir()
    (run / "stalled-rank0.txt").write_text("where it stood")
    assert runs.resumed("still").code == 0 and _same_as_whole(runs, run)
    assert (runs.folder / "still.1" / "stalled-rank0.txt").read_text() == "where it stood"
