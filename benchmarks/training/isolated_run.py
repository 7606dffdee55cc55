"""One training in a process of its own, so that its peak memory can be measured.

`python -m benchmarks.training.isolated_run RECIPE.yaml` trains and adds process.json to the run folder. The process and
all its children end when its standard input is closed, so a killed benchmark leaves no process behind.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from pathlib import Path
from subprocess import PIPE
from typing import Any

from benchmarks.harness.subprocesses import kill, start
from fixres.config.parsing import parse_recipe, save_recipe
from fixres.config.recipe import Recipe
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError

PROCESS = "process.json"


def train_apart(recipe: Recipe) -> None:
    """Trains `recipe` in a process of its own, which writes its output to FOLDER.log.

    Raises:
        InputError: the training failed; with the last line of its output.
    """
    folder = recipe.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    file, log = folder.with_name(f"{folder.name}.yaml"), folder.with_name(f"{folder.name}.log")
    save_recipe(recipe, file)
    with open(log, "wb") as output:
        command = [sys.executable, "-m", "benchmarks.training.isolated_run", str(file)]
        process = start(command, stdin=PIPE, stdout=output, stderr=output)
        try:
            code = process.wait()
        finally:
            kill(process)
    if code:
        raise InputError(f"the training of {folder} ended with code {code}: {_last_line(log)}; its output is in {log}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it wrote nothing"


def peak_memory() -> dict[str, Any]:
    """Peak of this process's resident memory in bytes, and of its tensors on the GPU (None without a GPU)."""
    import torch

    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"peak_resident_bytes": 1024 * int(found[1]) if found else None, "peak_gpu_bytes": on_gpu}


def _end_with_parent() -> None:
    def wait() -> None:
        os.read(0, 1)  # blocks until the pipe is closed
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Trains the recipe in the file that the command names."""
    from fixres.experiment.experiment import run_experiment
    from fixres.models.precision import choose_device
    from fixres.pipelines.datasets.prepared import PreparedData

    _end_with_parent()
    recipe = parse_recipe(["--config", sys.argv[1]])
    data = PreparedData(recipe.data, str(choose_device(recipe.device))).prepare()
    run_experiment(recipe, data, data.describe())
    write_json(recipe.folder / PROCESS, peak_memory())


if __name__ == "__main__":
    run(main)
