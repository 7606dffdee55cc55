"""Exclusive locks on open files and folders. The kernel releases a lock when the process that holds it dies.

filelock does not replace this: it cannot lock a folder, leaves a lock file beside each data file, and on file systems
without locks uses lock files that outlive a killed process.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from functools import cache

SECONDS_TO_WAIT = 5.0  # a killed process with much memory keeps its locks until the memory is freed

_held: set[int] = set()


def acquire(descriptor: int, seconds: float = SECONDS_TO_WAIT) -> bool:
    """Takes the lock of an open file or folder; waits some seconds for it if another process holds it.

    Forked child processes close the descriptor, so that a worker that outlives its parent does not hold the lock.

    Args:
        descriptor: `release` must close it, also if the result is False.
        seconds: how long to wait.

    Returns:
        False if another process holds the lock. True also if the file system has no locks: users of such file systems
        must avoid two runs with the same target.
    """
    _close_in_children()
    _held.add(descriptor)
    give_up = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
        except OSError:
            return True
        time.sleep(0.05)


def release(descriptor: int) -> None:
    """Closes a descriptor that was given to `acquire`, which releases its lock."""
    if descriptor in _held:  # in a forked child it is closed, and the number may belong to another file
        _held.discard(descriptor)
        os.close(descriptor)


@cache
def _close_in_children() -> None:
    os.register_at_fork(after_in_child=_close_all)


def _close_all() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()
