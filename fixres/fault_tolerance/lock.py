"""One process trains in one folder: a lock that the kernel releases when its process dies."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from fixres.pipelines.runtime.atomic_files import open_own
from fixres.pipelines.runtime.locks import acquire, release
from fixres.pipelines.spec import InputError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the lock file .NAME.lock beside a folder, which may not exist yet or may be moved.

    The parent of the folder is created if it does not exist. On file systems without locks nothing is locked.

    Raises:
        InputError: another process holds the lock, or it is the root folder.
    """
    folder = folder.absolute()
    if not folder.name:
        raise InputError(f"{folder} cannot be a run folder; choose another with --output")
    folder.parent.mkdir(parents=True, exist_ok=True)
    # NFS needs write access for an exclusive lock.
    descriptor = open_own(folder.with_name(f".{folder.name}.lock"), os.O_RDWR | os.O_CREAT)
    try:
        if not acquire(descriptor):
            raise InputError(
                f"{folder}: {_holder(descriptor)} is training there; wait for it, stop it, or choose another --output"
            )
        _write_holder(descriptor)
        yield
    finally:
        release(descriptor)


def _write_holder(descriptor: int) -> None:
    """Writes which process holds the lock. It is for people, so a full disk is no error."""
    since = datetime.now().astimezone().isoformat(" ", "seconds")
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} on {socket.gethostname()}, since {since}".encode(), 0)


def _holder(descriptor: int) -> str:
    with suppress(OSError):
        if text := os.pread(descriptor, 400, 0).decode("utf-8", "replace"):
            return f"another process ({text})"
    return "another process"
