"""Writes files and folders atomically: under a temporary name first, which becomes the final name at the end.

A killed process or a full disk leaves no file under the final name, only a hidden `.NAME.partial` beside it. The next
attempt removes or continues it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from fixres.pipelines.runtime.locks import acquire, release
from fixres.pipelines.spec import InputError

_JUST_WRITTEN = "another process was writing {} until now; check its result or run this again"


def atomic_file(target: Path, overwrite: bool = False) -> AbstractContextManager[Path]:
    """Gives a temporary path to write to. It becomes `target` if the block succeeds.

    Args:
        target: the final name; its folder is created if necessary.
        overwrite: replace an existing file.

    Raises:
        InputError: `target` exists and `overwrite` is not set, it is a folder, or another process is writing it.
    """
    return _written(target, overwrite, folder=False)


def atomic_folder(target: Path, overwrite: bool = False, mark: str = "*") -> AbstractContextManager[Path]:
    """As `atomic_file`, errors included, for a folder, which is empty at first.

    `overwrite` replaces a folder that is empty or holds a file `mark` (a glob), which all earlier results have.
    """
    return _written(target, overwrite, folder=True, mark=mark)


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON; replaces an existing file atomically."""
    with atomic_file(path, overwrite=True) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


class Unfinished(NamedTuple):
    """The paths of data whose writing can be continued after a crash."""

    data: Path  # the file or folder that gets the final name
    journal: Path  # where the writer notes what is safe on disk; `data` is kept after an error if this file exists


@contextmanager
def resumable(
    target: Path, overwrite: bool = False, folder: bool = False, discard: bool = False, mark: str = "*"
) -> Iterator[Unfinished]:
    """As `atomic_file` or `atomic_folder`, but unfinished data is kept while the writer has a journal beside it.

    `mark` is that of `atomic_folder`. `discard` allows to remove unfinished data of the other kind (file,
    folder) with a journal.
    """
    paths = unfinished(target)
    other = folder == paths.data.is_file() and paths.data.exists()
    if other and paths.journal.exists() and not discard:
        raise InputError(f"{paths.data} is unfinished data of another format; finish it, or discard it with --restart")
    with _written(target, overwrite, folder, paths.journal, mark):
        yield paths


def unfinished(target: Path) -> Unfinished:
    """Where `resumable` keeps the unfinished data of `target`."""
    target = target.absolute()  # "." has no name
    return Unfinished(_partial(target), target.with_name(f".{target.name}.journal"))


def _partial(target: Path) -> Path:
    target = target.absolute()
    return target.with_name(f".{target.name}.partial")


@contextmanager
def _written(
    target: Path, overwrite: bool, folder: bool, journal: Path | None = None, mark: str = "*"
) -> Iterator[Path]:
    check_free(target, overwrite, folder, mark)
    _check_writable(target.absolute().parents)
    target.parent.mkdir(parents=True, exist_ok=True)
    with os_errors_name(target), _claimed(_partial(target), target, folder) as partial:
        try:
            if journal and _is_empty(partial):  # killed after the data got its final name
                journal.unlink(missing_ok=True)
            if folder and not (journal and journal.exists()):
                for path in partial.iterdir():
                    _remove(path)
            yield partial
            put_in_place(partial, target)
            if journal:
                journal.unlink(missing_ok=True)
                sync(target.parent)
        finally:
            if not (journal and journal.exists()):
                _remove(partial, ignore_errors=True)


@contextmanager
def _claimed(partial: Path, target: Path, folder: bool) -> Iterator[Path]:
    """Creates the temporary file or folder if it does not exist, and locks it."""
    if partial.is_symlink():  # none of ours; writing to it would change another file
        partial.unlink()
    if partial.exists() and partial.is_dir() != folder:  # an earlier attempt wrote another format
        with _locked(partial, target):
            _remove(partial)
    with suppress(FileExistsError, IsADirectoryError):
        os.mkdir(partial) if folder else os.close(open_own(partial, os.O_RDWR | os.O_CREAT))
    with _locked(partial, target):
        if partial.is_dir() != folder:
            raise InputError(f"another process is writing {target} in another format; choose another name")
        yield partial


def _is_empty(partial: Path) -> bool:
    return not any(partial.iterdir()) if partial.is_dir() else partial.stat().st_size == 0


def open_own(path: str | Path, flags: int) -> int:
    """Opens a file that only this project writes, and follows no link to another file.

    It can be the `opener` of `open`.
    """
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def check_free(target: Path, overwrite: bool, folder: bool = False, mark: str = "*") -> None:
    """Raises InputError if `target` exists and must not be replaced; see `atomic_folder`."""
    _check_kind(target, folder)
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; replace it with --overwrite, or choose another name")
    if folder and target.exists() and any(target.iterdir()) and not any(target.glob(mark)):
        raise InputError(f"{target} is a folder of other files, which would be lost; choose another name")


def check_target(target: Path, folder: bool = False) -> None:
    """Checks before any work that `target`, a file or folder that may exist, can be written.

    Raises:
        InputError: `target` exists and is of the other kind, or one of its parents is a file.
        PermissionError: the folder in which it would be created is not writable.
    """
    _check_kind(target, folder)
    _check_writable([target, *target.absolute().parents] if folder else target.absolute().parents)


def keep_outside(source: Path, target: Path) -> None:
    """Raises InputError if `target` would lie among the images of the folder `source`, which it would change."""
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{target} is inside {source}, the images; choose a place outside")


def check_json_target(target: Path) -> None:
    """As `check_target`, for a JSON file, which replaces an older one but no other file."""
    check_target(target)
    if target.is_file():
        with open(target, "rb") as file:
            if file.read(1) not in (b"{", b"[", b""):
                raise InputError(f"{target} is not a JSON file and would be lost; choose another name")


def keep_source(source: Path, target: Path) -> None:
    """Raises InputError if overwriting `target` would remove `source`, from which it is made."""
    if source.resolve().is_relative_to(target.resolve()):
        raise InputError(f"{target} is or contains {source}, which would be lost; choose another place to write to")


def _check_kind(target: Path, folder: bool) -> None:
    if target.exists() and target.is_dir() != folder:
        found = "a file; choose another name for the folder" if folder else "a folder; choose a file name"
        raise InputError(f"{target} is {found}")


def _check_writable(paths: Sequence[Path]) -> None:
    """The first path that exists must be a writable folder; the others would be created in it."""
    existing = next(path for path in paths if path.exists())
    if not existing.is_dir():
        raise InputError(f"{existing} is a file, not a folder; choose another place to write to")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing))


def put_in_place(partial: Path, target: Path) -> None:
    """Renames a finished file or folder to its final name. A power cut leaves the old content or the new one."""
    for path in (*partial.iterdir(), partial) if partial.is_dir() else (partial,):
        sync(path)
    if partial.is_dir() and target.exists():
        # Unlike a file, a folder cannot be replaced in one step.
        old = target.with_name(f".{target.name}.old")
        _remove(old)
        os.rename(target, old)
        os.rename(partial, target)
        _remove(old)
    else:
        os.replace(partial, target)
    sync(target.parent)


def sync(path: Path) -> None:
    """Waits until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def os_errors_name(target: Path) -> Iterator[None]:
    """Adds the file name to errors that lack it, as those of writing to an open file (a full disk)."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(target)
        raise


@contextmanager
def _locked(partial: Path, target: Path) -> Iterator[None]:
    """Two processes never write the same temporary file."""
    try:
        descriptor = open_own(partial, os.O_RDONLY)
    except FileNotFoundError:  # the other process has renamed or removed it
        raise InputError(_JUST_WRITTEN.format(target)) from None
    try:
        if not acquire(descriptor):
            raise InputError(f"another process is writing {target}; wait for it or choose another name")
        if not _has_name(descriptor, partial):
            raise InputError(_JUST_WRITTEN.format(target))
        yield
    finally:
        release(descriptor)


def _has_name(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def _remove(path: Path, ignore_errors: bool = False) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors)
    else:
        path.unlink(missing_ok=True)
