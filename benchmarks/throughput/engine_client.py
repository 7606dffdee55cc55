"""Runs an engine in a process of its own, which is stopped while other engines work.

Engines prepare batches ahead. A running engine would fill its queues during its neighbor's window and deliver finished
batches in its own next window. So all processes of an engine are stopped (SIGSTOP) outside its windows. Its windows
then join without a gap, and short windows give the same speed as long ones.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from multiprocessing import Pipe
from subprocess import DEVNULL
from typing import Any, Self

from benchmarks.harness.interleaved import Window
from benchmarks.harness.subprocesses import guard, kill, start
from benchmarks.throughput.engines import Engine
from fixres.pipelines.spec import InputError

_TIMEOUT = 300.0  # seconds for one reply; a first batch that compiles kernels takes some dozens


class EngineClient:
    """Controls one engine. The constructor waits for its first batch.

    Attributes:
        engine: which one.
        first_batch_seconds: from opening, package imports included, to the first batch.
        memory_bytes_before: memory of the process before opening: Python and torch.
        memory_bytes_peak: largest value that `sample_memory` saw.
    """

    def __init__(self, engine: Engine, resolution: int) -> None:
        self.engine = engine
        self._connection, theirs = Pipe()
        command = [sys.executable, "-m", "benchmarks.throughput.engine_worker", str(theirs.fileno())]
        self._process = start(command, pass_fds=[theirs.fileno()], stdin=DEVNULL, stdout=DEVNULL)
        theirs.close()
        self._guard = guard("KILL", -self._process.pid)  # else the engine's processes would stay stopped forever
        self.memory_bytes_peak, opened = 0, False
        try:
            self.memory_bytes_before, self.first_batch_seconds = self._ask("open", engine, resolution)
            self.sample_memory()
            opened = True
        finally:
            if not opened:
                self.kill()

    def set_resolution(self, resolution: int) -> None:
        """Begins an epoch at another output side in pixels."""
        self._ask("set_resolution", resolution)

    def window(self, seconds: float) -> Window:
        """At least `seconds` of work."""
        return self._ask("window", seconds)

    def sample_memory(self) -> None:
        """Updates the peak. It takes milliseconds in which the engine works, so it is not done after each window."""
        self.memory_bytes_peak = max(self.memory_bytes_peak, self._ask("memory_bytes"))

    def epoch(self, seconds: float) -> Window:
        """An epoch from its start, at most about `seconds` of it."""
        return self._ask("epoch", seconds)

    def release_files(self) -> None:
        """Ends the running epoch and unmaps the files' pages, so that they can be evicted; the loader stays open."""
        self._ask("release_files")

    def costs(self) -> dict[str, float | None]:
        """See `engines.Stream.costs`."""
        return self._ask("costs")

    def kill(self) -> None:
        """Kills all its processes. May be called twice."""
        kill(self._process)
        kill(self._guard)
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the worker while its process runs; the process is stopped again afterwards."""
        name = f"engine={self.engine.name!r}"
        self._signal(signal.SIGCONT)
        try:
            self._connection.send((method, arguments))
            if not self._connection.poll(_TIMEOUT):
                raise InputError(f"{name} did not answer in {_TIMEOUT:.0f} s; leave it out")
            reply = self._connection.recv()
        except (EOFError, OSError):
            raise InputError(f"{name} died with its process; leave it out of --engines") from None
        finally:
            self._signal(signal.SIGSTOP)
        if isinstance(reply, InputError):
            raise reply
        if isinstance(reply, Exception):
            raise InputError(f"{name} failed: {reply}")
        return reply

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
