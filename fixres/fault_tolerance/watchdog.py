"""Ends a process that makes no progress, and writes where it hangs."""

from __future__ import annotations

import faulthandler
import os
import select
import threading
import time
from pathlib import Path

from fixres.pipelines.runtime.atomic_files import open_own
from fixres.pipelines.runtime.exit_codes import EXIT_STALLED

_STDERR = 2  # the file descriptor, even if sys.stderr was replaced
_TICKS = 20  # checks per stall time
_LONGEST_TICK = 5.0
_SECONDS_TO_WRITE = 10.0  # for the file of stacks: a disk that hangs must not keep the process alive


class Watchdog:
    """Within its block a thread checks that `heartbeat` is called at least every `seconds`.

    If it is not, the thread writes the Python stacks of all threads to FOLDER/stalled-rankR.txt and one line to stderr,
    and ends the process with `EXIT_STALLED`. `finally` clauses do not run: the thread that would run them hangs.

    The thread counts its own ticks instead of reading a clock: a process that was stopped (SIGSTOP, a suspended job or
    laptop) makes no ticks, so it has not stalled when it continues.

    A native call that keeps Python's lock (the GIL) also stops this thread. Then faulthandler, which needs no lock,
    writes all stacks to stderr after 2 x `seconds`. The process continues, because faulthandler uses a clock and would
    also end a suspended process. Waiting for data, a device, a collective or a lock releases the GIL, so this happens
    only with defects of native extensions.

    Args:
        folder: created when a file is written.
        seconds: 0 or less watches nothing.
        rank: of this process.
    """

    def __init__(self, folder: Path, seconds: float, rank: int = 0) -> None:
        self.folder, self.seconds, self.rank = folder, seconds, rank
        self._tick = min(seconds / _TICKS, _LONGEST_TICK)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._now = ("starting", time.monotonic())
        self._written = False

    def heartbeat(self, activity: str) -> None:
        """Reports progress, and what the process does next. It takes about 0.1 µs: it can be called in every step."""
        self._now = (activity, time.monotonic())

    def __enter__(self) -> Watchdog:
        self.heartbeat("starting")
        if self.seconds > 0:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.seconds > 0:
            self._ended.set()
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def _watch(self) -> None:
        last, num_ticks = self._now, 0
        while not self._ended.wait(self._tick):
            faulthandler.dump_traceback_later(2 * self.seconds, file=_STDERR)
            now = self._now  # a new object with every heartbeat
            last, num_ticks = now, num_ticks + 1 if now is last else 0
            if num_ticks * self._tick >= self.seconds:
                self._end(*last)

    def _end(self, activity: str, since: float) -> None:
        path = self.folder / f"stalled-rank{self.rank}.txt"
        try:
            writer = threading.Thread(target=self._write_stacks, args=(path, activity, since), daemon=True)
            writer.start()
            writer.join(_SECONDS_TO_WRITE)
            place = path if self._written else f"{path} could not be written"
            _log(
                f"rank {self.rank} has been {activity} for {self.seconds:g} s, longer than "
                f"fault_tolerance.stall_seconds; stacks: {place}; --resume auto continues from the last training "
                "checkpoint\n"
            )
        finally:
            os._exit(EXIT_STALLED)

    def _write_stacks(self, path: Path, activity: str, since: float) -> None:
        began = time.ctime(time.time() - (time.monotonic() - since))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(path, "w", opener=open_own) as file:
                file.write(f"rank {self.rank}, process {os.getpid()}: {activity} since {began}\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            self._written = True
        except OSError:  # the disk may be the cause of the stall
            faulthandler.dump_traceback(_STDERR)


def _log(line: str) -> None:
    """Writes to stderr unless that would block: the reader of the pipe may be the cause of the stall."""
    if select.select([], [_STDERR], [], 1.0)[1]:
        os.write(_STDERR, line.encode("utf-8", "backslashreplace")[: select.PIPE_BUF])
