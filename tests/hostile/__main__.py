"""Tries commands on generated checkpoints and recipes, each in a process of its own.

    python -m tests.hostile 500

Each must succeed, or end with exit code 2 and one line, within 10 s of CPU time and 2 GB of memory. Exit code 1 if one
does not; the files of those are kept in the folder that is named.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from fixres.cli.main import dispatch
from fixres.config.parsing import parse_recipe
from fixres.experiment.experiment import check_before_data
from fixres.experiment.variant_parts import VariantPlan
from fixres.models.factory import create_model
from fixres.pipelines.runtime.exit_codes import EXIT_INPUT, run
from tests.coded import write_coded_folder
from tests.hostile.checkpoints import NETS, hostile_checkpoints
from tests.hostile.recipes import hostile_recipes

MAX_SECONDS, MAX_BYTES, MAX_WAIT = 10, 2e9, 120
_SEED = 18


class Case(NamedTuple):
    """What to try, and how it was made."""

    made: str
    file: Path
    call: Callable[[], None]


class Outcome(NamedTuple):
    """How a process ended."""

    code: int
    seconds: float
    max_bytes: float
    stderr: str

    @property
    def fault(self) -> str:
        """What is wrong with it; empty if nothing is."""
        lines = self.stderr.splitlines()
        last = lines[-1] if lines else ""
        if self.code not in (0, EXIT_INPUT):
            return f"exit code {self.code}"
        if self.code == EXIT_INPUT and not (last.startswith("fixres") and last.isprintable() and len(last) < 2000):
            return "not one line"
        if any(line.startswith(("Traceback", "  ", "fixres")) or not line.isprintable() for line in lines[:-1]):
            return "more than one line"  # notes such as "reads its weights ..." may stand before it
        if self.seconds > MAX_SECONDS or self.max_bytes > MAX_BYTES:
            return "too slow or too large"
        return ""


def checkpoint_cases(num: int, folder: Path) -> Iterator[Case]:
    """Commands on checkpoints: predict, evaluate on the data that they name, export."""
    write_coded_folder(folder / "data", [(40, 40)] * 4)
    image = next((folder / "data").rglob("*.jpg"))
    for number, file in enumerate(hostile_checkpoints(num, _SEED, folder)):
        path = folder / f"net{number}{file.suffix}"
        path.write_bytes(file.data)
        arch = [] if number % 3 else ["--arch", NETS[number % len(NETS)].name]
        loading = ["--engine", "torch", "--num-workers", "0", "--work-dir", folder / "work"]
        output = ["--format", "safetensors", "--output", folder / "out.safetensors", "--overwrite"]
        predict, evaluate = ["predict", path, image, "--device", "cpu"], ["evaluate", path, "--device", "cpu", *loading]
        words = [predict, predict, evaluate, ["export", path, *output]][number % 4] + arch
        yield Case(f"{words[0]}, {file.made}", path, lambda words=words: dispatch([*map(str, words)]))


def recipe_cases(num: int, folder: Path) -> Iterator[Case]:
    """Everything of a run that comes before its data: settings, device, network, schedule."""
    for number, recipe in enumerate(hostile_recipes(num, _SEED)):
        path = folder / f"recipe{number}.yaml"
        path.write_bytes(recipe.data)
        yield Case(recipe.made, path, lambda path=path: _prepare(path))


def _prepare(path: Path) -> None:
    recipe = parse_recipe(["--config", str(path)])
    check_before_data(recipe)
    create_model(recipe.model, 10)
    for name in recipe.variants:
        assert VariantPlan(name, recipe).resolutions


def tried(case: Case, folder: Path) -> Outcome:
    """Runs a case in a child process."""
    errors, start = folder / "stderr", time.perf_counter()
    child = os.fork()
    if child == 0:
        _redirect(errors)
        sys.argv = ["fixres"]
        try:
            run(case.call)
        except SystemExit as end:
            _leave(int(end.code or 0))
        except BaseException:
            sys.excepthook(*sys.exc_info())
            _leave(1)
        _leave(0)
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.perf_counter() - start > MAX_WAIT:
            os.kill(child, 9)
        time.sleep(0.01)
    text = errors.read_text(errors="replace")
    return Outcome(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, 1024 * usage.ru_maxrss, text)


def _redirect(errors: Path) -> None:
    """Sends what the child writes to files."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(num: int) -> int:
    """Tries all cases, prints the faults and a summary of each kind as JSON; returns the exit code."""
    folder, faults = Path(tempfile.mkdtemp(prefix="hostile-")), 0
    os.chdir(folder)
    torch.set_num_threads(1)
    for kind, cases in (("checkpoints", checkpoint_cases), ("recipes", recipe_cases)):
        summary = _try_all(kind, cases(num, folder), folder)
        faults += summary["faults"]
        print(json.dumps(summary), flush=True)
    if not faults:
        shutil.rmtree(folder)
    return int(faults > 0)


def _try_all(kind: str, cases: Iterator[Case], folder: Path) -> dict[str, Any]:
    outcomes = []
    for case in cases:
        outcome = tried(case, folder)
        outcomes.append(outcome)
        if outcome.fault:
            shown = outcome._replace(stderr=outcome.stderr[-1500:])
            print(f"{case.file}: {case.made}: {outcome.fault}, {shown}", flush=True)
        else:
            case.file.unlink()
    return {
        "kind": kind,
        "num": len(outcomes),
        "succeeded": sum(outcome.code == 0 for outcome in outcomes),
        "refused": sum(outcome.code == EXIT_INPUT for outcome in outcomes),
        "faults": sum(outcome.fault != "" for outcome in outcomes),
        "max_seconds": round(max(outcome.seconds for outcome in outcomes), 1),
        "max_gb": round(max(outcome.max_bytes for outcome in outcomes) / 1e9, 2),
    }


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    raise SystemExit(main(int(sys.argv[1])))
