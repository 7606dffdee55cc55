"""How data files come to be: under a temporary name, verified, then renamed.

A process that is killed or a disk that is full leaves nothing under the final name, only a hidden `.NAME.partial`
beside it, which the next attempt clears.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipelines.spec import InputError

_SECONDS_FOR_ORPHANS = 5.0


@contextmanager
def atomic_file(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary path to write to, which becomes `target` if the block ends well.

    Args:
        target: the final name; its folder is made if need be.
        overwrite: replace an existing file instead of refusing.
    """
    if target.is_dir():
        raise InputError(f"{target} is a folder; choose a file name")
    partial = _prepare(target, overwrite)
    with naming(target):
        partial.touch()
        with _locked(partial, target):
            try:
                yield partial
                put_in_place(partial, target)
            finally:
                partial.unlink(missing_ok=True)


def check_target(target: Path, folder: bool = False) -> None:
    """Looks, before any work, whether `target` can be written.

    Args:
        target: the final name; it may exist.
        folder: a folder is to be made there.

    Raises:
        InputError: something of the other kind is there, or a file stands where a folder must.
        PermissionError: the folder in which it is to be made takes no files.
    """
    if target.exists() and target.is_dir() != folder:
        wanted = "a file; choose another name for the folder" if folder else "a folder; choose a file name"
        raise InputError(f"{target} is {wanted}")
    _check_holder([target, *target.absolute().parents] if folder else target.absolute().parents)


def _check_holder(places: Sequence[Path]) -> None:
    """The first of them that exists must be a folder that takes files; the others would be made in it."""
    holder = next(place for place in places if place.exists())
    if not holder.is_dir():
        raise InputError(f"{holder} is a file, no folder; choose another place to write to")
    if not os.access(holder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(holder))


def keep_source(source: Path, target: Path) -> None:
    """Raises InputError if making `target`, overwriting what is there, would remove what it is made of."""
    if source.resolve().is_relative_to(target.resolve()):
        raise InputError(f"{target} is or holds {source}, which would be lost; choose another place to write to")


def put_in_place(partial: Path, target: Path) -> None:
    """Gives a finished file its final name; a power cut leaves the old file or the new one, never a part."""
    sync(partial)
    os.replace(partial, target)
    sync(target.parent)


class Unfinished(NamedTuple):
    """Where a conversion that can be continued is being written.

    Attributes:
        data: the file or folder that will get the final name.
        journal: what `pipelines.conversion.journal` keeps beside it.
    """

    data: Path
    journal: Path


@contextmanager
def resumable(target: Path, overwrite: bool = False, folder: bool = False) -> Iterator[Unfinished]:
    """Gives the paths of an unfinished file or folder, which becomes `target` if the block ends well.

    Unlike `atomic_file`, what is unfinished stays as long as there is a journal beside it.

    Args:
        target: the final name; its parent is made if need be.
        overwrite: replace what exists instead of refusing.
        folder: make a folder.
    """
    data = _prepare(target, overwrite)
    journal = target.with_name(f".{target.name}.journal")
    if target.exists() and target.is_dir() != folder:
        kinds = ("a file", "a folder") if folder else ("a folder", "a file")
        raise InputError(f"{target} is {kinds[0]}; choose another name for {kinds[1]}")
    if data.exists() and data.is_dir() != folder:
        _remove(data)  # of a conversion to the other kind of format
    with naming(target):
        data.mkdir(exist_ok=True) if folder else data.touch()
        with _locked(data, target):
            try:
                yield Unfinished(data, journal)
                for path in (*data.iterdir(), data) if folder else (data,):
                    sync(path)
                _replace_folder(data, target) if folder else os.replace(data, target)
                journal.unlink(missing_ok=True)
                sync(target.parent)
            finally:
                if not journal.exists():
                    _remove(data)


@contextmanager
def atomic_folder(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives an empty temporary folder to fill, which becomes `target` if the block ends well.

    Args:
        target: the final name; its parent is made if need be.
        overwrite: replace an existing folder instead of refusing.
    """
    partial = _prepare(target, overwrite)
    if target.is_file():
        raise InputError(f"{target} is a file; choose another name for the folder")
    with naming(target):
        partial.mkdir(exist_ok=True)
        with _locked(partial, target):
            try:
                _clear(partial)
                yield partial
                for path in (*partial.iterdir(), partial):
                    sync(path)
                _replace_folder(partial, target)
                sync(target.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def _prepare(target: Path, overwrite: bool) -> Path:
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; remove it, choose another name, or overwrite it")
    _check_holder(target.absolute().parents)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.partial")


@contextmanager
def naming(target: Path) -> Iterator[None]:
    """Errors of writing to an open file, a full disk above all, carry no file name; they get the target's."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(target)
        raise


@contextmanager
def _locked(partial: Path, target: Path) -> Iterator[None]:
    """Holds a lock that dies with the process, so that two runs never write the same temporary file."""
    descriptor = os.open(partial, os.O_RDONLY)
    try:
        try:
            lock(descriptor)
        except BlockingIOError:
            raise InputError(f"another process is writing {target}; wait for it or choose another name") from None
        except OSError:
            pass  # some cluster file systems have no locks; there, two runs to one target are the user's to avoid
        if not _is_at(descriptor, partial):  # who held the lock gave the file its final name, or removed it
            raise InputError(f"another process was writing {target} until now; look what it made, or run this again")
        yield
    finally:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file still has the name by which it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def lock(descriptor: int, seconds: float = _SECONDS_FOR_ORPHANS) -> None:
    """Takes a file's lock. A killed process and its forked workers hold it for a moment longer, so it is waited for.

    Raises:
        BlockingIOError: it is still held after `seconds`.
        OSError: the file system has no locks.
    """
    give_up = time.monotonic() + seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise
        time.sleep(0.05)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Waits until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _replace_folder(partial: Path, target: Path) -> None:
    """Folders, unlike files, cannot be replaced in one step: the old one steps aside first."""
    if not target.exists():
        os.rename(partial, target)
        return
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    os.rename(target, old)
    os.rename(partial, target)
    shutil.rmtree(old)
