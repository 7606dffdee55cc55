"""Small training runs in processes of their own, and what they left."""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.coded import write_coded_folder

NUM_TRAIN = 40
_ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}
_RECIPE: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "eval_every": 2,
    "sweep": [48],
    "device": "cpu",
    "precision": "fp32",  # bf16, the default of CPUs with AMX, rounds too much for runs that must agree
    "fault_tolerance": {"steps": 2, "stall_seconds": 120},
    "model": {"name": "resnet10t", "kwargs": {"channels": [8, 16, 16, 24], "stem_width": 8, "drop_rate": 0.2}},
    "optim": {"lr": 0.4, "batch_size": 8, "warmup_epochs": 1},
    "variants": {
        "baseline": {"epochs": 3, "resolution": {"points": [[0, 48]], "multiple": 16}, "test_res": 48},
        "fast": {
            "epochs": 4,
            "resolution": {"points": [[0, 32], [1, 48]], "multiple": 16},
            "test_res": 64,
            "finetune": {"epochs": 2, "augmentation": "test"},
        },
    },
}


def write_recipe(folder: Path, **changes: Any) -> Path:
    """A recipe of some seconds, on images beside it."""
    for split, num in (("train", NUM_TRAIN), ("val", 19)):
        if not (folder / "photos" / split).exists():
            write_coded_folder(folder / "photos" / split, [(60 + 3 * (i % 9), 90 - 2 * (i % 11)) for i in range(num)])
    data = {"engine": "torch", "num_workers": 0, "path": str(folder / "photos"), "work_dir": str(folder / "work")}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(_RECIPE | {"data": data} | changes))
    return path


@functools.cache
def _server_process() -> subprocess.Popen:
    """One for all tests, since its imports take seconds; it ends when its stdin does."""
    command = [sys.executable, "-m", "tests.fixres.run_script"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_ENVIRONMENT)


class Server:
    """Starts runs quickly; see `tests.fixres.run_script`.

    Args:
        folder: of the files `notes.0`, what they train on, and `errors`, their stderr.
    """

    def __init__(self, folder: Path) -> None:
        self._notes, self._errors = folder / "notes", folder / "errors"
        self._running: set[int] = set()
        self._child = 0

    def start(self, *arguments: object, tool: str = "train", **environment: object) -> int:
        """Starts a run; returns its process number."""
        environment = {"NOTES": self._notes, "ERRORS": self._errors} | environment
        order = [tool, [str(argument) for argument in arguments], {k: str(value) for k, value in environment.items()}]
        self._child = self._ask(order)
        self._running.add(self._child)
        return self._child

    def start_all(self, number: int, *arguments: object, tool: str = "train", **environment: object) -> list[int]:
        """Starts processes that train together, as torchrun would; returns their process numbers by rank."""
        together = {"WORLD_SIZE": number, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()} | environment
        return [self.start(*arguments, tool=tool, RANK=rank, LOCAL_RANK=rank, **together) for rank in range(number)]

    def torchrun(self, number: int, *arguments: object, restarts: int = 0, **environment: object) -> int:
        """Starts torchrun with a run of `number` processes, which it forks; returns its process number."""
        words = ["--standalone", f"--nproc-per-node={number}", f"--max-restarts={restarts}", "--start-method=fork"]
        script = Path(__file__).with_name("run_script.py")
        return self.start(*words, "--run-path", script, *arguments, tool="torch.distributed.run", **environment)

    def end(self, child: int | None = None) -> int:
        """Waits for a run's end, the last one's if none is named; returns its exit code, negative for a signal."""
        child = self._child if child is None else child
        code = self._ask(child)
        self._running.remove(child)
        return code

    def _ask(self, order: object) -> int:
        process = _server_process()
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) and not line.strip().lstrip("-").isdigit():
            pass  # what the runs print
        return int(line)

    def errors(self) -> str:
        """What its runs wrote to stderr so far."""
        return self._errors.read_text()

    def wait_for_batches(self, number: int, child: int, notes: Path | None = None) -> None:
        """Returns when the run has written so many batches to its notes, or to those of others, or has ended."""
        file, process = (notes, None) if notes else (self._notes.with_name("notes.0"), child)
        while len(batches_of(file, process)) < number and lives(child):
            time.sleep(0.002)

    def close(self) -> None:
        """Ends the runs that a failed test has left."""
        for child in list(self._running):
            os.kill(child, signal.SIGKILL)
            self.end(child)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """A server whose notes are FOLDER/notes.0 and whose runs' stderr is FOLDER/errors."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def lives(process: int) -> bool:
    """Whether a process that was started has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def all_end(processes: Iterable[int], seconds: float) -> bool:
    """Whether all processes end in time. In containers, orphans may stay zombies: nobody reads their exit codes."""
    processes, give_up = list(processes), time.monotonic() + seconds
    while any(map(lives, processes)) and time.monotonic() < give_up:
        time.sleep(0.01)
    return not any(map(lives, processes))


def batches_of(notes: Path, process: int | None = None) -> list[list[Any]]:
    """[process, epoch, indices] of each batch in the notes; complete lines only."""
    if not notes.exists():
        return []
    lines = [json.loads(line) for line in notes.read_text().splitlines() if line.endswith("]")]
    return [line for line in lines if process is None or line[0] == process]


def weights(run: Path) -> dict[str, torch.Tensor]:
    """All final weights of a run, by variant, file and name."""
    files = sorted(run.glob("*/*.pt"))
    return {
        f"{file.parent.name}/{file.name}/{name}": value
        for file in files
        if file.parent.name != "states"
        for name, value in torch.load(file, weights_only=True)["state_dict"].items()
    }


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs ended with the same bits."""
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def metrics(run: Path) -> list[dict[str, Any]]:
    """The run's metrics without what depends on time."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {key: value for key, value in line.items() if "seconds" not in key and "_per_" not in key} for line in lines
    ]
