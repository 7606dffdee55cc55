"""A function applied to chunks of numbers by a pool of processes, results in order, whatever happens to whom."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Generic, TypeVar

import numpy as np

from pipelines.runtime.fork_server import main_program_hidden, safe_context
from pipelines.spec import InputError

T = TypeVar("T")
_CHUNKS_AHEAD = 4  # chunks in flight per worker


def map_chunks(
    function: Callable[[np.ndarray], T], order: np.ndarray, chunk_size: int, num_workers: int
) -> Iterator[T]:
    """`function` of each chunk of `order`, in order, with a bounded number of chunks in flight.

    Args:
        function: takes an int64 array. It must be picklable once DALI was loaded into this process.
        order: int64 (N,).
        chunk_size: numbers per call.
        num_workers: processes; 0 works in this one.
    """
    chunks = (order[start : start + chunk_size] for start in range(0, len(order), chunk_size))
    if num_workers == 0:
        yield from map(function, chunks)
        return
    # Forking hands the function over without pickling it, with the kernels it has loaded.
    context = safe_context()
    with ProcessPoolExecutor(num_workers, context, initializer=_init_worker, initargs=(function,)) as pool:
        waiting: deque[Future] = deque()
        try:
            for chunk in chunks:
                with main_program_hidden():
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
    """How many workers to start: `wanted`, or one for each core, and no more than there are chunks."""
    if wanted is None:
        wanted = len(os.sched_getaffinity(0))
    if wanted < 0:
        raise InputError(f"num_workers={wanted} must not be negative; 0 works in this process")
    return min(wanted, num_chunks)


class _Shared(Generic[T]):
    """What a worker was forked with."""

    function: Callable[[np.ndarray], T]


def _init_worker(function: Callable[[np.ndarray], T]) -> None:
    _Shared.function = staticmethod(function)
    # Ctrl-C reaches the whole process group; the parent alone answers it, and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A killed parent cannot end its workers; they would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _work(indices: np.ndarray) -> T:
    return _Shared.function(indices)
