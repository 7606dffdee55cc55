"""One process trains in one folder: a lock that the kernel releases when its process dies."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from pipelines.runtime.locks import acquire, release
from pipelines.spec import InputError


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
        if not acquire(descriptor):
            raise InputError(
                f"{folder}: {_holder(descriptor)} is training there; wait for it, stop it, or choose another --run_dir"
            )
        _sign(descriptor)
        yield
    finally:
        release(descriptor)


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
