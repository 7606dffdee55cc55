"""Signals, clocks, locks, stalls, kills between two steps of the bookkeeping: what a whole run does about it."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.runtime.exit_codes import EXIT_INPUT, EXIT_INTERRUPT, EXIT_PREEMPTED, EXIT_STALLED
from tests.fixres.fault_tolerance.fault_runs import Runs, runs_in, states, wait_until_stopped
from tests.fixres.runs import Server, batches_of, metrics, same_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with runs_in(tmp_path_factory.mktemp("process")) as made:
        yield made


def _same_as_whole(runs: Runs, run: Path) -> bool:
    return same_weights(run, runs.folder / "whole") and metrics(run) == metrics(runs.folder / "whole")


def test_interrupted_it_says_how_to_go_on(runs: Runs) -> None:
    ended = runs("interrupted", faults=("step:6:SIGINT",))
    assert ended.code == EXIT_INTERRUPT and ended.names("interrupted; the same call with --resume auto goes on")
    assert runs.go_on("interrupted").code == 0 and _same_as_whole(runs, runs.folder / "interrupted")


def test_interrupted_before_the_first_state_it_promises_nothing(runs: Runs) -> None:
    ended = runs("early", faults=("step:1:SIGINT",))
    assert ended.code == EXIT_INTERRUPT and ended.names("interrupted") and "--resume" not in ended.last
    assert runs.go_on("early").code == 0 and _same_as_whole(runs, runs.folder / "early")


@pytest.mark.parametrize(
    "moment", ["before:fixres.experiment.variant_end:_sweep", "before:fixres.experiment.variant_end:finetune"]
)
def test_asked_to_stop_while_testing_or_fixing(runs: Runs, moment: str) -> None:
    """What is cut short is done again from its beginning; training is not."""
    run = runs.folder / moment.split(":")[-1]
    ended = runs(run.name, faults=(f"{moment}:SIGTERM",))
    assert ended.code == EXIT_PREEMPTED and ended.names("ended by SIGTERM", "--resume auto")
    assert not (run / "fast" / "finetuned.pt").exists()
    num = len(batches_of(runs.folder / "notes.0"))
    assert runs.go_on(run.name).code == 0 and _same_as_whole(runs, run)
    assert len(batches_of(runs.folder / "notes.0")) == num


@pytest.mark.parametrize(
    ("moment", "not_again"),
    [
        ("before:fixres.experiment.variant_end:_fix", "_test_trained"),  # trained and tested
        ("after:fixres.experiment.variant_end:_fix", "finetune"),  # fixed, not yet tested
        ("before:fixres.experiment.variant_end:_result", "_sweep"),  # all done
    ],
)
def test_what_of_an_variants_end_is_done_is_not_done_again(runs: Runs, moment: str, not_again: str) -> None:
    """Whoever began it again would be killed at once."""
    run = runs.folder / re.sub(r"\W", "-", f"done-{moment}")
    ended = runs(run.name, faults=(f"{moment}:SIGTERM",))
    assert ended.code == EXIT_PREEMPTED and ended.names("ended by SIGTERM", "--resume auto")
    assert runs.go_on(run.name, faults=(f"before:fixres.experiment.variant_end:{not_again}:SIGKILL",)).code == 0
    assert _same_as_whole(runs, run)


def test_the_clock_may_go_back(runs: Runs) -> None:
    """States are ordered by their numbers, not by any time; files may be of the future, too."""
    faults = ("clock:3",)
    assert runs("clock", faults=(*faults, "step:7:SIGKILL")).code == -signal.SIGKILL
    old, new = states(runs.folder / "clock")
    os.utime(old, (2e9, 2e9))
    os.utime(new, (1e9, 1e9))
    num = len(batches_of(runs.folder / "notes.0"))
    assert runs.go_on("clock", faults=faults).code == 0 and _same_as_whole(runs, runs.folder / "clock")
    first = batches_of(runs.folder / "notes.0")[num]
    assert first[1] == 1 and first[2] == batches_of(runs.folder / "notes.0")[6][2]  # the newest state is of 6 updates


def test_a_loader_that_delivers_no_more_ends_the_run(runs: Runs) -> None:
    ended = runs("stalled", "--fault_tolerance.stall_seconds", 2, faults=("silent:8",))
    assert ended.code == EXIT_STALLED
    stacks = runs.folder / "stalled" / "stalled-rank0.txt"
    assert re.search(rf"rank 0 has been waiting for data at 48 px .*stacks: {re.escape(str(stacks))}", ended.last)
    assert "faults.py" in stacks.read_text() and "in deliveries" in stacks.read_text()
    assert runs.go_on("stalled").code == 0 and _same_as_whole(runs, runs.folder / "stalled")


def test_a_second_run_in_the_same_folder_is_refused(runs: Runs) -> None:
    """Even one that would move the folder aside. The first one is named and not disturbed."""
    process = runs.start("two", faults=("step:6:SIGSTOP",))
    wait_until_stopped(process)
    had = {path: path.read_bytes() for path in (runs.folder / "two").rglob("*") if path.is_file()}
    other = Server(runs.folder / "other")
    (runs.folder / "other").mkdir()
    other.start("--config", runs.recipe, "--run_dir", runs.folder / "two")
    assert other.end() == EXIT_INPUT
    last = other.errors().splitlines()[-1]
    assert last.startswith("train_fast.py: ") and f"another process ({process} on " in last
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
def test_killed_while_it_takes_the_place_of_an_older_run(runs: Runs, moment: str) -> None:
    """The older run is kept whole, here or aside; the next start is a clean one, or shows the older one again."""
    run = runs.folder / re.sub(r"\W", "-", moment)
    shutil.copytree(runs.folder / "whole", run)
    had = {path.relative_to(run): path.read_bytes() for path in run.rglob("*.pt")}
    num = len(batches_of(runs.folder / "notes.0"))
    assert runs(run.name, faults=(f"{moment}:SIGKILL",)).code == -signal.SIGKILL
    assert runs.go_on(run.name).code == 0 and _same_as_whole(runs, run)
    older = run if moment.startswith("before:fixres.experiment.run_folder:_move") else run.with_name(f"{run.name}.1")
    assert had.items() <= {path.relative_to(older): path.read_bytes() for path in older.rglob("*.pt")}.items()
    assert not run.with_name(f"{run.name}.2").exists()
    trained = len(batches_of(runs.folder / "notes.0")) - num
    assert trained == (0 if older == run else 12 if moment == "step:1" else 10)


def test_a_run_that_stood_still_at_once_leaves_a_folder_that_can_be_used(runs: Runs) -> None:
    run = runs.folder / "still"
    run.mkdir()
    (run / "stalled-rank0.txt").write_text("where it stood")
    assert runs.go_on("still").code == 0 and _same_as_whole(runs, run)
    assert (runs.folder / "still.1" / "stalled-rank0.txt").read_text() == "where it stood"
