"""A contender in a process of its own, frozen while others work.

Engines read ahead. Left running, one would fill its queues with its neighbor's CPU time and hand out a finished
stock in its own next window. So all processes of a contender are stopped (SIGSTOP) outside its windows: windows follow
one another as if nothing lay between, and short ones are as true as long ones.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from benchmarks.harness.interleaved import Window
from benchmarks.throughput.engines import Contender
from pipelines.spec import InputError

_PATIENCE = 300.0  # seconds for one reply; a first batch that compiles kernels takes some dozens
# Kills the contender's processes if this one dies without a word: they would stay stopped for ever.
_GUARD = 'read -r nothing; kill -KILL -- "-$1" 2>/dev/null'


class Remote:
    """Drives one contender. Opening waits for its first batch.

    Attributes:
        contender: which.
        first_batch_seconds: from opening, package imports included, to the first batch.
        memory_bytes_before: of the process before opening: Python, torch.
        memory_bytes_peak: the most that `look_at_memory` saw.
    """

    def __init__(self, contender: Contender, resolution: int) -> None:
        self.contender = contender
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        command = [sys.executable, "-m", "benchmarks.throughput.engine_worker", str(theirs.fileno())]
        self._process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # a process group of its own, and Ctrl-C reaches us alone
        )
        theirs.close()
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self._process.pid)], stdin=subprocess.PIPE, start_new_session=True
        )
        ours.settimeout(_PATIENCE)
        self._connection = ours.makefile("rw", encoding="utf-8")
        try:
            self._send(asdict(contender) | {"path": str(contender.path)})
            opened = self._ask("open", resolution=resolution)
        except BaseException:
            self.kill()
            raise
        self.first_batch_seconds: float = opened["first_batch_seconds"]
        self.memory_bytes_before: int = opened["memory_bytes_before"]
        self.memory_bytes_peak = 0
        self.look_at_memory()

    def set_resolution(self, resolution: int) -> None:
        """Begins an epoch at another output side in pixels."""
        self._ask("resolution", resolution=resolution)

    def window(self, seconds: float) -> Window:
        """At least `seconds` of work."""
        return Window(**self._ask("window", seconds=seconds))

    def look_at_memory(self) -> None:
        """Not after each window: it takes milliseconds, in which the contender would work unseen."""
        self.memory_bytes_peak = max(self.memory_bytes_peak, self._ask("memory")["memory_bytes"])

    def epoch(self, seconds: float) -> Window:
        """An epoch from its start, at most about `seconds` of it."""
        return Window(**self._ask("epoch", seconds=seconds))

    def rest(self) -> None:
        """Ends the running epoch and frees the files' pages, so that they can be evicted; the loader stays open."""
        self._ask("rest")

    def costs(self) -> dict[str, float | None]:
        """See `contenders.Stream.costs`."""
        return self._ask("costs")

    def kill(self) -> None:
        """Ends all its processes. Idempotent."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._guard.kill()
        self._guard.wait()
        self._guard.stdin.close()
        with suppress(OSError):
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _ask(self, do: str, **values: Any) -> dict[str, Any]:
        """One request while the process runs; it is frozen again afterwards."""
        self._signal(signal.SIGCONT)
        try:
            self._send({"do": do, **values})
            line = self._connection.readline()
        except TimeoutError:
            raise InputError(
                f"engine={self.contender.engine!r} gave no answer in {_PATIENCE:.0f} s; leave it out"
            ) from None
        finally:
            self._signal(signal.SIGSTOP)
        if not line:
            raise InputError(f"engine={self.contender.engine!r} died with its process; leave it out of --engines")
        reply = json.loads(line)
        if "error" in reply:
            text = reply["error"] if reply["is_input"] else f"engine={self.contender.engine!r} failed: {reply['error']}"
            raise InputError(text)
        return reply

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._connection.write(json.dumps(message) + "\n")
            self._connection.flush()
        except BrokenPipeError:
            pass  # the reply will be missing

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
