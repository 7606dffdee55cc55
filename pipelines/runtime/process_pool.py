"""Worker processes: a pool that applies a function to chunks of numbers in order, and one that works aside.

Workers of the pool are forks of this process, which hands over the function and its compiled kernels without pickling.
Once DALI is loaded they are forks of a server process, because forks of a process with DALI's threads hung now and
then.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.context import BaseContext, ForkServerContext
from typing import Any, TypeVar

import numpy as np

from fixres.pipelines.runtime.allocator import tune_allocator
from fixres.pipelines.spec import MAX_WORKERS, InputError

T = TypeVar("T")
SHARED_MEMORY = "/dev/shm"  # where processes exchange batches and keep semaphores
_CHUNKS_AHEAD = 4  # chunks in flight per worker
_BYTES_FOR_SEMAPHORES = 1 << 17  # a page each
# Not multiprocessing: its children are joined at exit, also by forks of this process, whose children they are not. The
# pipe to the new process ends with this one.
_ASIDE = """
import os, sys, threading
sys.path[:] = {path!r}
threading.Thread(target=lambda: os._exit(len(os.read(0, 1))), daemon=True).start()
from {module} import {name}
{name}()
"""
_function: Callable[[np.ndarray], Any]  # in a worker: set when it starts


def map_chunks(
    function: Callable[[np.ndarray], T], order: np.ndarray, chunk_size: int, num_workers: int
) -> Iterator[T]:
    """Yields `function` of each chunk of `order`, in order, with a bounded number of chunks in flight.

    Args:
        function: takes an int64 array. It must be picklable if DALI is loaded in this process.
        order: int64 (N,).
        chunk_size: numbers per call.
        num_workers: processes; 0 works in this one.

    Raises:
        InputError: a worker was killed, as the kernel does when memory runs out.
        OSError: shared memory is full.
    """
    chunks = (order[start : start + chunk_size] for start in range(0, len(order), chunk_size))
    if num_workers == 0:
        yield from map(function, chunks)
        return
    check_shared_memory()
    with ProcessPoolExecutor(num_workers, safe_context(), initializer=_init_worker, initargs=(function,)) as pool:
        waiting: deque[Future] = deque()
        try:
            for chunk in chunks:
                with main_module_hidden():
                    waiting.append(pool.submit(_work, chunk))
                if len(waiting) >= num_workers * _CHUNKS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise InputError("a worker process died, probably out of memory; use fewer workers") from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def num_processes(wanted: int | None, num_chunks: int) -> int:
    """Number of workers to start: `wanted`, or one per core if it is None; at most one per chunk."""
    if wanted is None:
        wanted = len(os.sched_getaffinity(0))
    if wanted < 0:
        raise InputError(f"num_workers={wanted} must not be negative; 0 works in this process")
    if wanted > MAX_WORKERS:
        raise InputError(f"num_workers={wanted} must be at most {MAX_WORKERS}")
    return min(wanted, num_chunks)


def check_shared_memory(num_bytes: int = 0) -> None:
    """Raises OSError unless shared memory has room for semaphores and `num_bytes`."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:  # other systems keep it elsewhere
        return
    free, needed = found.f_bavail * found.f_frsize, num_bytes + _BYTES_FOR_SEMAPHORES
    if found.f_blocks and free < needed:  # no blocks: without a limit
        sizes = f"{free / 1e6:.1f} MB free, and worker processes need at least {needed / 1e6:.1f}"
        raise shared_memory_error(f"{SHARED_MEMORY} has {sizes}")


def shared_memory_error(what: str) -> OSError:
    """The error for full shared memory, with what to do about it."""
    remedy = f"make {SHARED_MEMORY} larger (docker run --shm-size 8g), or use fewer workers or a smaller batch"
    return OSError(errno.ENOMEM, f"{what}; {remedy}", SHARED_MEMORY)


def fork_server() -> ForkServerContext:
    """Starts workers as forks of a server process. A process has one server only.

    The server imports what the workers need once, when it starts. It imports torch, which takes seconds, only if this
    process has it: a conversion works without torch.
    """
    context = multiprocessing.get_context("forkserver")
    loaders = ["fixres.pipelines.loaders.pillow"] if "torch" in sys.modules else []
    context.set_forkserver_preload(["fixres.pipelines.runtime.process_pool", *loaders])
    # Python's server and its tracker of resources, and their children, would die of a SIGUSR1 that a scheduler sends to
    # all processes of a job.
    with _safe_path(), _blocked(signal.SIGUSR1):
        forkserver.ensure_running()
    return context


@contextmanager
def _blocked(*signals: signal.Signals) -> Iterator[None]:
    """New processes begin with these signals blocked."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _safe_path() -> Iterator[None]:
    """Keeps Python from putting the current folder first on a new process's path: a user's folder may be called PIL."""
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def safe_context() -> BaseContext:
    """Starts workers as forks of this process, or of a server if DALI is loaded."""
    return fork_server() if "nvidia.dali" in sys.modules else multiprocessing.get_context("fork")


@contextmanager
def main_module_hidden() -> Iterator[None]:
    """Keeps new workers of a server from importing the main module again.

    They do not need it. Its imports (timm, torchvision) take seconds in each worker, and a script without
    `if __name__ == "__main__"` would run a second time.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__spec__", "__file__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)


def start_aside(work: Callable[[], None]) -> None:
    """Starts a new process that calls `work`, a function of a module, and ends with this one. Nobody waits for it.

    Nothing is done in worker processes, and where no process can be started.
    """
    if multiprocessing.parent_process() is not None or not sys.executable:
        return
    code = _ASIDE.format(path=[*map(str, sys.path)], module=work.__module__, name=work.__name__)
    # Ctrl-C and a scheduler's SIGUSR1 are for this process alone. The new one has them blocked from its start on.
    with suppress(OSError, RuntimeError), _blocked(signal.SIGINT, signal.SIGUSR1):
        process = subprocess.Popen([sys.executable, "-I", "-c", code], stdin=subprocess.PIPE)
        threading.Thread(target=_reap, args=(process,), daemon=True).start()


def _reap(process: subprocess.Popen) -> None:
    process.wait()
    assert process.stdin is not None
    process.stdin.close()


def _init_worker(function: Callable[[np.ndarray], Any]) -> None:
    global _function
    _function = function
    # Ctrl-C reaches the whole process group; only the parent handles it, and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    start_worker()


def start_worker() -> None:
    """What each worker process does first. A fork has its parent's allocator, but a fork of a server has not."""
    tune_allocator()
    end_with_parent()


def end_with_parent(_number: int = 0) -> None:
    """In a worker: ends it when its parent dies. A killed parent cannot end its workers, which would wait forever.

    A fork server ends with the last of its workers. Also a `worker_init_fn` of torch's DataLoader, whose own check does
    not notice a dead parent behind a fork server.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _work(indices: np.ndarray) -> Any:
    return _function(indices)
