"""Whole runs with full disks, and with checkpoints that are damaged or of another run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from fixres.fault_tolerance.checkpoints import CheckpointFiles
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, EXIT_SYSTEM
from tests.fixres.fault_tolerance.fault_runs import Runs, checkpoints, runs_in
from tests.fixres.runs import batches_of, metrics, same_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with runs_in(tmp_path_factory.mktemp("states")) as made:
        yield made


@pytest.fixture(scope="module")
def stopped(runs: Runs) -> Path:
    """A run that was killed in its second epoch, with two training checkpoints; for copying."""
    assert runs("stopped", faults=("step:7:SIGKILL",)).code == -9
    assert len(checkpoints(runs.folder / "stopped")) == 2
    return runs.folder / "stopped"


def _same_as_whole(runs: Runs, run: Path) -> bool:
    return same_weights(run, runs.folder / "whole") and metrics(run) == metrics(runs.folder / "whole")


def test_a_full_disk_costs_checkpoints_not_the_run(runs: Runs) -> None:
    """While no checkpoint can be written the training continues; older ones stay intact and can be resumed from."""
    ended = runs("full", faults=("full:state.partial:1:3",))
    assert ended.code == 0 and _same_as_whole(runs, runs.folder / "full")
    lines = [line for line in ended.lines if "the training checkpoint was not saved (No space left on device" in line]
    assert len(lines) == 2 and all("state-0000000" in line and "training continues" in line for line in lines)
    ended = runs("full2", faults=("full:state.partial:2", "step:8:SIGKILL"))
    assert ended.code == -9 and [path.name[:14] for path in checkpoints(runs.folder / "full2")] == [
        "state-00000001", "state-00000002",
    ]  # fmt: skip
    assert runs.resumed("full2").code == 0 and _same_as_whole(runs, runs.folder / "full2")


@pytest.mark.parametrize("name", ["report.json", "finetuned.pt", "metrics.jsonl", "recipe.yaml"])
def test_a_full_disk_at_the_end_is_one_line(runs: Runs, name: str) -> None:
    run = runs.folder / f"end-{name.split('.')[0]}"
    ended = runs(run.name, faults=(f"full:{name}",))
    assert ended.code == EXIT_SYSTEM and ended.names("the disk is full", name)
    assert not (run / "fast" / name).exists() and not (run / "report.json").exists()
    assert runs.resumed(run.name).code == 0
    assert _same_as_whole(runs, run) and (run / "report.json").exists()


def test_a_truncated_checkpoint_is_named_and_the_one_before_used(runs: Runs, stopped: Path) -> None:
    run = shutil.copytree(stopped, runs.folder / "truncated")
    newest = checkpoints(run)[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    ended = runs.resumed(run.name)
    assert ended.code == 0 and _same_as_whole(runs, run)
    assert any(newest.name in line and "damaged" in line for line in ended.lines)


def test_with_all_checkpoints_damaged_it_ends_in_one_line(runs: Runs, stopped: Path) -> None:
    run = shutil.copytree(stopped, runs.folder / "damaged")
    for path in checkpoints(run):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    kept = {path: path.read_bytes() for path in checkpoints(run)}
    ended = runs.resumed(run.name)
    assert ended.code == EXIT_INPUT and ended.names(f"{run}/states", "none of the 2 training checkpoints can be read")
    assert {path: path.read_bytes() for path in checkpoints(run)} == kept


@pytest.mark.parametrize(
    ("arguments", "setting"),
    [
        (["--optim.lr", 0.3], "optim.lr=0.4, this call has 0.3"),
        (["--variants.fast.finetune.epochs", 2], "variants.fast.finetune.epochs=1, this call has 2"),
        (["--optim.batch_size", 10], "optim.batch_size=8, this call has 10"),
    ],
)
def test_the_setting_that_differs_is_named(runs: Runs, stopped: Path, arguments: list[object], setting: str) -> None:
    ended = runs.resumed(stopped.name, *arguments)
    assert ended.code == EXIT_INPUT and ended.names(str(stopped), setting, "--resume no")
    assert len(checkpoints(stopped)) == 2


def test_settings_of_how_and_where_it_runs_may_change(runs: Runs, stopped: Path) -> None:
    run = shutil.copytree(stopped, runs.folder / "elsewhere")
    ended = runs.resumed(run.name, "--fault_tolerance.keep", 3, "--work-dir", runs.folder / "work2")
    assert ended.code == 0 and _same_as_whole(runs, run)


def test_other_data_is_refused(runs: Runs, stopped: Path) -> None:
    other = shutil.copytree(runs.folder / "photos", runs.folder / "other")
    next((other / "train" / "class_00").iterdir()).rename(other / "train" / "class_00" / "00000.png.jpg")
    ended = runs.resumed(stopped.name, "--data", other)
    assert ended.code == EXIT_INPUT and ended.names(str(stopped), "the data is not the data with which the run began")
    # The same images elsewhere are the same data.
    shutil.copytree(runs.folder / "photos", runs.folder / "moved")
    run = shutil.copytree(stopped, runs.folder / "moved-run")
    assert runs.resumed(run.name, "--data", runs.folder / "moved").code == 0
    assert _same_as_whole(runs, run)


def _another_version(state: dict) -> None:
    state["version"] += 1


def _another_network(state: dict) -> None:
    """As another version of timm might name the layers."""
    net = state["variants"]["fast"]["net"]
    net["stem.weight"] = net.pop("conv1.0.weight")


def _without_a_variant(state: dict) -> None:
    del state["variants"]["fast"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_another_version, "another program or version"),
        (_another_network, "do not fit this program"),
        (_without_a_variant, "do not fit this program"),
    ],
)
def test_a_checkpoint_of_another_program_is_one_line(
    runs: Runs, stopped: Path, change: Callable[[dict], None], words: str
) -> None:
    run = shutil.copytree(stopped, runs.folder / change.__name__.strip("_"))
    files = CheckpointFiles(run / "states")
    found = files.newest()
    assert found is not None
    change(found[1])
    files.write(found[0] + 1, found[1])
    ended = runs.resumed(run.name)
    assert ended.code == EXIT_INPUT and ended.names(str(run), words, "--resume no")


def _of_version_1(checkpoint: dict) -> None:
    """As the program wrote it before variants, fine-tuning and fault tolerance had these names."""
    former = {"variants": "arms", "finetune": "fix"}
    recipe = {".".join(former.get(part, part) for part in key.split(".")): v for key, v in checkpoint["recipe"].items()}
    arms = checkpoint.pop("variants")
    for arm in arms.values():
        arm["ending"]["fix_epochs"] = arm["ending"].pop("finetune_epochs")
    checkpoint |= {"version": 1, "recipe": recipe | {"arms.small": None}, "arms": arms}


def test_a_run_of_version_1_is_resumed(runs: Runs, stopped: Path) -> None:
    run = shutil.copytree(stopped, runs.folder / "version-1")
    for path in checkpoints(run)[:-1]:
        path.unlink()
    files = CheckpointFiles(run / "states")
    found = files.newest()
    assert found is not None
    kept = (run / "metrics.jsonl").read_text()[: found[1]["metrics_bytes"]].replace('"variant"', '"arm"')
    (run / "metrics.jsonl").write_text(kept)
    _of_version_1(found[1])
    files.write(found[0], found[1] | {"metrics_bytes": len(kept)})
    ended = runs.resumed(run.name)
    assert ended.code == 0 and same_weights(run, runs.folder / "whole"), ended.lines
    assert [line["loss"] for line in metrics(run)] == [line["loss"] for line in metrics(runs.folder / "whole")]


def test_a_finished_run_prints_the_table_again_and_trains_nothing(runs: Runs) -> None:
    run, notes = runs.folder / "whole", runs.folder / "notes.0"
    before, had = metrics(run), {path: path.read_bytes() for path in run.glob("fast/*.pt")}
    report, num = (run / "report.json").stat().st_mtime_ns, len(batches_of(notes))
    ended = runs.resumed("whole")
    assert ended.code == 0 and len(batches_of(notes)) == num
    assert (run / "report.json").stat().st_mtime_ns > report and metrics(run) == before
    assert {path: path.read_bytes() for path in run.glob("fast/*.pt")} == had
    assert "waiting for data" not in "".join(ended.lines)


def test_a_checkpoint_has_only_values_that_can_be_read_safely(stopped: Path) -> None:
    for path in checkpoints(stopped):
        content = torch.load(path, weights_only=True)
        assert content["format"] == "roc-fixres-state"


@pytest.mark.parametrize("run", ["file", "strange", "file/below"])
def test_a_folder_of_something_else_is_not_changed(runs: Runs, run: str) -> None:
    (runs.folder / "file").write_text("a diary")
    (runs.folder / "strange").mkdir(exist_ok=True)
    (runs.folder / "strange" / "thesis.tex").write_text("three years")
    ended = runs.resumed(run) if run == "file" else runs(run)
    assert ended.code == EXIT_INPUT
    assert ended.names(str(runs.folder / run.split("/")[0]))
    assert (runs.folder / "file").read_text() == "a diary"
    assert [path.name for path in (runs.folder / "strange").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("place", ["parent", "states"])
def test_a_folder_that_may_not_be_written_to(runs: Runs, stopped: Path, place: str) -> None:
    """It trains without checkpoints, but does not start without a lock."""
    parent = runs.folder / f"read-only-{place}"
    run = Path(shutil.copytree(stopped, parent / "run"))
    closed = parent if place == "parent" else run / "states"
    closed.chmod(0o555)
    try:
        ended = runs.resumed(run, faults=("modest",))
    finally:
        closed.chmod(0o755)
    if place == "parent":
        assert ended.code == EXIT_SYSTEM and ended.names("not allowed to write", ".run.lock")
    else:
        assert ended.code == 0 and _same_as_whole(runs, run)
        assert any("the training checkpoint was not saved (Permission denied" in line for line in ended.lines)
