"""What the options of the commands and the settings of a run become, before torch is loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fixres.cli.commands import predict, train
from fixres.config.jobs import FinetuneJob
from fixres.config.recipe import OptimConfig, Recipe, ResolutionConfig, VariantConfig
from fixres.experiment.experiment import _find_checkpoint
from fixres.pipelines.spec import InputError


def test_after_two_dashes_nothing_is_an_option(tmp_path: Path) -> None:
    options = predict.parse(["--top-k", "3", "net.pt", "--", "--odd.jpg", "-", "--top-k"])
    assert (options.model, options.top_k) == ("net.pt", 3)
    assert options.image == [Path("--odd.jpg"), Path("-"), Path("--top-k")]


def test_two_fine_tunings_into_files_of_one_folder_have_a_report_each(tmp_path: Path) -> None:
    first = FinetuneJob("net.pt", test_res=64, output=tmp_path / "a.pt")
    first.report([64]).with_suffix(".md").write_text("here")
    assert FinetuneJob("net.pt", test_res=64, output=tmp_path / "b.pt").report([64]) == tmp_path / "b_report"
    with pytest.raises(InputError, match=r"a_report.md exists"):
        FinetuneJob("net.pt", test_res=64, output=tmp_path / "a.pt")
    assert FinetuneJob("net.pt", test_res=64, output=tmp_path / "resnet50.tv_in1k")._is_file is False


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Recipe(name=3), "name=3 must be text"),
        (lambda: Recipe(variants={"a": 3}), "must be a mapping of names to VariantConfig"),
        (lambda: Recipe(device="gpu"), "device='gpu' is unknown"),
        (lambda: OptimConfig(lr="0.1"), "lr='0.1' must be a number"),
        (lambda: ResolutionConfig(points=[128]), r"points=\[128\] must be a list, each of its values 2 values"),
        (lambda: VariantConfig(epochs="3"), "epochs='3' must be a whole number"),
    ],
)
def test_settings_of_wrong_types_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("ramp", "points", "epochs", "warmup", "message"),
    [
        ("step", [(0, 64)], 1, 1, ""),
        ("step", [(0, 64), (3, 96)], 4, 4, ""),
        ("step", [(0, 64), (3, 96)], 3, 0, "96 px from epoch 3 on are never reached in 3 epochs"),
        ("linear", [(0, 64), (3, 96)], 3, 0, ""),
        ("linear", [(0, 64), (3, 96)], 2, 0, "never reached in 2 epochs; use other --variants.a.resolution.points"),
        ("step", [(0, 64)], 2, 2.5, "a warm-up of 2.5 epochs is longer than .* --optim.warmup_epochs 0.25"),
    ],
)
def test_schedules_that_end_too_early(ramp: Any, points: list, epochs: int, warmup: float, message: str) -> None:
    variant = VariantConfig(epochs, ResolutionConfig(points, ramp))
    recipe = Recipe(variants={"a": variant}, optim=OptimConfig(warmup_epochs=warmup))
    if message:
        with pytest.raises(InputError, match=message):
            recipe.check_schedules()
    else:
        recipe.check_schedules()


def test_a_run_that_finds_nothing_to_resume_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = SimpleNamespace(newest=lambda: None)
    assert _find_checkpoint(Recipe(run_dir=tmp_path, resume="auto"), {}, empty) is None
    assert "no training checkpoint to resume from; a new run begins" in "".join(capsys.readouterr())
    assert _find_checkpoint(Recipe(run_dir=tmp_path), {}, empty) is None
    assert not "".join(capsys.readouterr())


def test_parsing_leaves_the_handlers_of_signals(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    train.parse(["--data", str(tmp_path)])
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)) == before


_INTERRUPTED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "fixres.cli.main":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from fixres.__main__ import main
main()
"""


def test_an_interrupt_while_modules_are_loaded_prints_nothing() -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED], cwd=root, capture_output=True, text=True, env=os.environ, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
