"""One process trains in one folder: a lock that the kernel takes back when its holder dies, however it dies.

`take` and `give_back` are the lock itself, for whoever else has a file that belongs to one process.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from pipelines.runtime.atomic_files import lock
from pipelines.spec import InputError

# A killed process with much memory holds its locks until that is given back, and whoever restarts it is quick.
_SECONDS_TO_DIE = 5.0

_held: set[int] = set()  # descriptors that forked workers close, or a lock would outlive its process in them


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock .NAME.lock beside a folder, which may be moved or not exist yet. On file systems that know no
    locks nothing is held and nothing is said.

    Args:
        folder: what is locked; its parent is made if need be.

    Raises:
        InputError: another process holds it; says which. Or it is the root folder.
    """
    folder = folder.absolute()
    if not folder.name:
        raise InputError(f"{folder} can be no run folder; choose another with --run_dir")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # NFS grants an exclusive lock only to those who may write.
    descriptor = os.open(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not take(descriptor):
            raise InputError(
                f"{folder}: {_holder(descriptor)} is training there; wait for it, stop it, or choose another --run_dir"
            )
        _sign(descriptor)
        yield
    finally:
        give_back(descriptor)


def take(descriptor: int) -> bool:
    """Whether nobody else holds the lock of an open file, now or after some seconds; then it is ours.

    True as well where the file system knows no locks: two runs are then the user's to avoid. The descriptor is for
    `give_back` to close in any case, and forked processes close it by themselves.
    """
    _held.add(descriptor)
    try:
        lock(descriptor, _SECONDS_TO_DIE)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def give_back(descriptor: int) -> None:
    """Closes a descriptor given to `take`, and with it gives the lock back."""
    if descriptor in _held:  # not in a child, where that number may be another file by now
        _held.discard(descriptor)
        os.close(descriptor)


def _sign(descriptor: int) -> None:
    """Notes who holds the lock; for people, so a full disk is no reason to stop."""
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}, since {since}".encode(), 0)


def _holder(descriptor: int) -> str:
    with suppress(OSError):
        if text := os.pread(descriptor, 400, 0).decode("utf-8", "replace"):
            return f"another process ({text})"
    return "another process"


def _let_go_in_child() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go_in_child)
