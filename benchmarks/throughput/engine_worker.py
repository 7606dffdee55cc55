"""The process of one engine: `python -m benchmarks.throughput.engine_worker FD`, started by `engine_client`.

Requests and replies are Python objects on the connection with file descriptor FD. The process does nothing else, so
its memory and CPU time are the engine's.
"""

from __future__ import annotations

from fixres.pipelines.runtime.allocator import tune_allocator
from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported
    tune_allocator()

import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import torch  # imported here, so that every engine's process has it before memory and first batch are measured

from benchmarks.harness.interleaved import Window
from benchmarks.harness.page_cache import release_pages
from benchmarks.throughput.engines import Engine, Stream
from fixres.pipelines.spec import InputError

_QUIET_CHECKS = 10  # of 0.02 s each


class Server:
    """The methods that `engine_client.EngineClient` calls; see there."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._stream: Stream | None = None
        self._family: list[psutil.Process] = []  # looked up once, because that takes milliseconds

    def open(self, engine: Engine, resolution: int) -> tuple[int, float]:
        """Opens the engine; returns bytes of memory before, and seconds to its first batch."""
        before, start = memory_bytes(), time.perf_counter()
        self._engine, self._stream = engine, Stream(engine, resolution)
        self._stream.next_batch()
        return before, time.perf_counter() - start

    def set_resolution(self, resolution: int) -> None:
        self._stream.set_resolution(resolution)
        self._family = []

    def window(self, seconds: float) -> Window:
        """Batches until `seconds` have passed, from the arrival of one to the arrival of another."""
        cpu, start, num_images = cpu_seconds(self._family), time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            num_images += self._stream.next_batch()
        self._synchronize()
        elapsed = time.perf_counter() - start
        used = cpu_seconds(self._family) - cpu
        self._family = self._family or family()  # the workers exist only after the window that warms up
        return Window(num_images, elapsed, used)

    def epoch(self, seconds: float) -> Window:
        """An epoch from its start, or as much of it as fits into `seconds`."""
        cpu, start, num_images = cpu_seconds(family()), time.perf_counter(), 0
        for num in self._stream.epoch():
            num_images += num
            if time.perf_counter() - start > seconds:
                break
        self._synchronize()
        elapsed = time.perf_counter() - start
        return Window(num_images, elapsed, cpu_seconds(family()) - cpu)

    def costs(self) -> dict[str, float | None]:
        return self._stream.costs()

    def memory_bytes(self) -> int:
        return memory_bytes()

    def release_files(self) -> None:
        """Ends the running epoch and all work for it, and unmaps the files' pages; the loader stays open."""
        self._stream.end_epoch()
        wait_for_quiet(family())
        release_pages(self._engine.path)

    def _synchronize(self) -> None:
        if self._engine.device != "cpu":
            torch.cuda.synchronize(self._engine.device)


def wait_for_quiet(processes: list[psutil.Process], max_seconds: float = 20.0) -> None:
    """Returns when no thread but the calling one has worked or waited for storage for 0.2 s.

    Workers finish the batches that they have begun, torch's workers up to 4 each, although the epoch has ended. That
    work must not count in the next measurement.
    """
    quiet, until = 0, time.monotonic() + max_seconds
    while quiet < _QUIET_CHECKS and time.monotonic() < until:
        time.sleep(0.02)
        quiet = 0 if any(_has_busy_thread(process.pid) for process in processes) else quiet + 1


def _has_busy_thread(pid: int) -> bool:
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            state = task.read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if state in "RD" and task.parent.name != str(threading.get_native_id()):
            return True
    return False


def cpu_seconds(processes: list[psutil.Process]) -> float:
    """User and system time of the processes and of their finished children."""
    total = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def memory_bytes() -> int:
    """Memory of this process and its children without the page cache: anonymous and shared pages, each counted once."""
    return sum(_own_bytes(process.pid) for process in family())


def family() -> list[psutil.Process]:
    """This process and all its living descendants."""
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def _own_bytes(pid: int) -> int:
    """Proportional set size, so that pages shared by forked workers are counted once."""
    for file, names in (("smaps_rollup", ("Pss_Anon", "Pss_Shmem")), ("status", ("RssAnon", "RssShmem"))):
        try:
            lines = dict(
                line.split(":", 1) for line in Path(f"/proc/{pid}/{file}").read_text().splitlines() if ":" in line
            )
            return sum(int(lines[name].split()[0]) * 1024 for name in names)
        except (OSError, KeyError, ValueError):  # it has ended, or the kernel is too old for these fields
            continue
    return 0


def _last_line(error: Exception) -> str:
    """The error itself: workers' errors contain a traceback, and its last line is the error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1]}"


def main() -> None:
    """Answers requests until the connection closes."""
    connection, server = Connection(int(sys.argv[1])), Server()
    with suppress(EOFError):
        while True:
            method, arguments = connection.recv()
            try:
                reply = getattr(server, method)(*arguments)
            except InputError as error:
                reply = error
            except Exception as error:  # the benchmark reports which engine failed
                traceback.print_exc()
                reply = RuntimeError(_last_line(error))
            connection.send(reply)
    os._exit(0)


if __name__ == "__main__":
    main()
