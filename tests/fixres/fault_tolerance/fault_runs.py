"""Small runs with arranged faults, and their output."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.fixres.runs import Server, serving, write_recipe

VARIANTS = {
    "baseline": None,
    "fast": {
        "epochs": 2,
        "resolution": {"points": [[0, 32], [1, 48]], "multiple": 16},
        "test_res": 48,
        "finetune": {"epochs": 1, "augmentation": "test"},
    },
}


class Ended(NamedTuple):
    """How a run ended.

    Attributes:
        code: exit code, negative for a signal.
        lines: of its stderr.
    """

    code: int
    lines: list[str]

    @property
    def last(self) -> str:
        """The line that says why it ended."""
        return self.lines[-1]

    def names(self, *words: str) -> bool:
        """Whether the last line begins as a command's own and has all these words, and nothing is a traceback."""
        return (
            self.last.startswith("train.py: ")
            and all(word in self.last for word in words)
            and not any("Traceback" in line for line in self.lines)
        )


class Runs:
    """Runs of one recipe, one after the other, in one folder.

    Args:
        folder: of recipe, images, notes and run folders.
        server: starts them.
    """

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder, self.server = folder, server
        self.recipe = write_recipe(folder, variants=VARIANTS)
        self._num_read = 0

    def start(self, run: str | Path, *arguments: object, faults: tuple[str, ...] = ()) -> int:
        """Starts a run in FOLDER/run; returns its process number."""
        self._num_read = len(self._errors())
        return self.server.start(*(f"--fault={fault}" for fault in faults), "--config", self.recipe, "--output",
                                 self.folder / run, *arguments)  # fmt: skip

    def end(self) -> Ended:
        """Waits for the end of the run that was started."""
        code = self.server.end()
        return Ended(code, [line.split("\r")[-1] for line in self._errors()[self._num_read :].splitlines()])

    def __call__(self, run: str | Path, *arguments: object, faults: tuple[str, ...] = ()) -> Ended:
        """A whole run."""
        self.start(run, *arguments, faults=faults)
        return self.end()

    def resumed(self, run: str | Path, *arguments: object, faults: tuple[str, ...] = ()) -> Ended:
        """A whole run with --resume auto."""
        return self(run, "--resume", "auto", *arguments, faults=faults)

    def _errors(self) -> str:
        path = self.folder / "errors"
        return path.read_text() if path.exists() else ""


@contextmanager
def runs_in(folder: Path) -> Iterator[Runs]:
    """Runs in FOLDER, and the run "whole" without faults."""
    with serving(folder) as server:
        runs = Runs(folder, server)
        ended = runs("whole")
        assert ended.code == 0, ended.lines
        yield runs


def checkpoints(run: Path) -> list[Path]:
    """A run's training checkpoints, the oldest first."""
    return sorted((run / "states").glob("state-*.pt"))


def wait_until_stopped(process: int) -> None:
    """Returns when a process has got SIGSTOP, or has ended."""
    while _status(process) not in "TZ":
        time.sleep(0.002)


def _status(process: int) -> Any:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "Z"
