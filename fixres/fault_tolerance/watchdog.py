"""Ends a process in which nothing moves any more, and says where it stood.

A run that hangs costs as much as one that trains.
"""

from __future__ import annotations

import faulthandler
import os
import select
import threading
import time
from pathlib import Path
from types import TracebackType

from pipelines.runtime.exit_codes import EXIT_STALLED

_STDERR = 2  # the real one, whatever sys.stderr is by now
_TICKS = 20  # in the time after which a stall is one
_LONGEST_TICK = 5.0
_SECONDS_TO_WRITE = 10.0  # the file of stacks; a disk that hangs must not keep the process alive


class Watchdog:
    """Within its block a thread watches that `doing` is called at least every `seconds`.

    If not, it writes FOLDER/stalled-rankR.txt with the Python stacks of all threads and one line to stderr, and ends
    the process with `EXIT_STALLED`. `finally` clauses do not run: the thread that would run them hangs.

    It counts its own ticks and not the time on a clock: a process that was stopped (SIGSTOP, a suspended job) or slept
    with its laptop makes no ticks, and is not taken for a stall when it wakes.

    A native call that keeps Python's lock (the GIL) stops the watching thread, too. Then after 2 x `seconds` all stacks
    are written to stderr by faulthandler, which needs no lock, but the process goes on: faulthandler goes by the
    clock, and would end one that was only suspended. Waiting for data, a device, a collective or a lock releases the
    GIL, so this is for defects of native extensions.

    Args:
        folder: made when first written to.
        seconds: 0 or less: nothing is watched.
        rank: of this process.
    """

    def __init__(self, folder: Path, seconds: float, rank: int = 0) -> None:
        self.folder, self.seconds, self.rank = folder, seconds, rank
        self._tick = min(seconds / _TICKS, _LONGEST_TICK)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._now = ("starting", time.monotonic())
        self._written = False

    def doing(self, what: str) -> None:
        """Says that something moves; about 0.1 µs, so that it can be called at every step.

        Args:
            what: such as "waiting for data".
        """
        self._now = (what, time.monotonic())

    def __enter__(self) -> Watchdog:
        self.doing("starting")
        if self.seconds > 0:
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.seconds > 0:
            self._ended.set()
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        last, num_ticks = self._now, 0
        while not self._ended.wait(self._tick):
            faulthandler.dump_traceback_later(2 * self.seconds, file=_STDERR)
            now = self._now  # a new object with every call of `doing`
            last, num_ticks = now, num_ticks + 1 if now is last else 0
            if num_ticks * self._tick >= self.seconds:
                self._end(*last)

    def _end(self, what: str, since: float) -> None:
        path = self.folder / f"stalled-rank{self.rank}.txt"
        try:
            writer = threading.Thread(target=self._write_stacks, args=(path, what, since), daemon=True)
            writer.start()
            writer.join(_SECONDS_TO_WRITE)
            place = path if self._written else f"{path} could not be written"
            _log(
                f"rank {self.rank} has been {what} for {self.seconds:g} s, longer than fault_tolerance.stall_seconds; "
                f"stacks: {place}; --resume auto goes on from the last state\n"
            )
        finally:
            os._exit(EXIT_STALLED)

    def _write_stacks(self, path: Path, what: str, since: float) -> None:
        began = time.ctime(time.time() - (time.monotonic() - since))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(path, "w") as file:
                file.write(f"rank {self.rank}, process {os.getpid()}: {what} since {began}\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            self._written = True
        except OSError:  # the disk may be why nothing moves
            faulthandler.dump_traceback(_STDERR)


def _log(line: str) -> None:
    """Writes to stderr, unless that would block: whoever should read it may be what hangs."""
    if select.select([], [_STDERR], [], 1.0)[1]:
        os.write(_STDERR, line.encode("utf-8", "backslashreplace")[: select.PIPE_BUF])
