"""One training in a process of its own, so that its peak memory is its own: what it is, and how it is driven.

`python -m benchmarks.training.isolated_run RECIPE.yaml` trains and adds process.json to the run folder. It ends,
with all
that it started, when its standard input is closed: a benchmark that is killed leaves nobody behind.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from fixres.config.parsing import parse_recipe, save_recipe
from fixres.config.recipe import Recipe
from pipelines.runtime.atomic_files import write_json
from pipelines.runtime.exit_codes import run
from pipelines.spec import InputError

PROCESS = "process.json"


def train_apart(recipe: Recipe) -> None:
    """Trains `recipe` in a process of its own; what it says goes to FOLDER.log.

    Raises:
        InputError: it did not come to its end; with its last words.
    """
    folder = recipe.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    file, log = folder.with_name(f"{folder.name}.yaml"), folder.with_name(f"{folder.name}.log")
    save_recipe(recipe, file)
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.training.isolated_run", str(file)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C reaches us alone
        )
        try:
            code = process.wait()
        finally:
            _kill(process)
    if code:
        raise InputError(f"the training of {folder} ended with code {code}: {_last_line(log)}; all it said is in {log}")


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends it and all that it started; after its own end there is nobody left."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdin.close()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def peak_memory() -> dict[str, Any]:
    """What this process needed at most: bytes resident in memory, and bytes of tensors on the GPU, None without one."""
    import torch

    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    return {"peak_resident_bytes": 1024 * int(found[1]) if found else None, "peak_gpu_bytes": on_gpu}


def _end_with_parent() -> None:
    def wait() -> None:
        os.read(0, 1)  # nothing is ever written
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def main() -> None:
    """Trains what the file describes."""
    from fixres.experiment.experiment import run_experiment
    from fixres.models.precision import choose_device
    from pipelines.datasets.prepared import PreparedData

    _end_with_parent()
    recipe = parse_recipe(["--config", sys.argv[1]])
    data = PreparedData(recipe.data, str(choose_device(recipe.device)))
    run_experiment(recipe, data, data.describe())
    write_json(recipe.folder / PROCESS, peak_memory())


if __name__ == "__main__":
    run(main)
