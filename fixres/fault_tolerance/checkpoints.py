"""Training checkpoints on disk: the whole state of a run, which can be resumed from the newest intact one.

A file's name contains the first 16 hex digits of its SHA-256, `state-00001234-0123456789abcdef.pt`, so that one rename
makes content and checksum appear together.
"""

from __future__ import annotations

import errno
import hashlib
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fixres.models.checkpoint import save_hashed
from fixres.models.weights import refuse_bombs
from fixres.pipelines.runtime.atomic_files import os_errors_name, put_in_place, sync
from fixres.pipelines.spec import InputError

CHECKPOINTS = "states"  # folder name
_NAME = re.compile(r"state-([0-9]{8,18})-([0-9a-f]{16})\.pt")
_PARTIAL = ".state.partial"
_PLAIN = (int, float, str, bool, type(None), Tensor, nn.Parameter)


class Saved(NamedTuple):
    """A file with the name of a training checkpoint, which contains its step; its content is not checked."""

    step: int
    path: Path


class CheckpointFiles:
    """The training checkpoints of one run in one folder. Only one process may write there, see `lock.locked`.

    Args:
        folder: created with the first file.
        keep: number of files to keep, at least 1. With 2, the run can be resumed if the disk damages one.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise InputError(f"keep={keep} must be at least 1, or there is nothing to resume from")
        self.folder, self.keep = folder, keep

    def write(self, step: int, content: dict[str, Any]) -> Path:
        """Writes a training checkpoint, synchronizes it with the disk, and removes all but the newest `keep`.

        A file of the same step is replaced. Files of later steps are removed, too: they are damaged or belong to a run
        that was abandoned, and would hide this one.

        Args:
            step: at least 0, higher than before; orders the files.
            content: tensors, numbers, strings, None, bools, and lists, tuples and dicts of them.

        Raises:
            OSError: the disk is full or fails; the older files are unchanged.
            TypeError: `content` has a value that could not be read back.
        """
        _check_plain(content, "content")
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            sync(self.folder.parent)
        partial = self.folder / _PARTIAL  # always the same name, so that a file of a killed process is overwritten
        with os_errors_name(self.folder / f"state-{step:08d}.pt"):
            try:
                digest = save_hashed(content, partial)
                path = self.folder / f"state-{step:08d}-{digest[:16]}.pt"
                put_in_place(partial, path)
            finally:
                partial.unlink(missing_ok=True)
        self._tidy(step, path)
        return path

    def newest(self) -> tuple[int, dict[str, Any], list[str]] | None:
        """The step and content (on the CPU) of the newest intact file, and a line for each newer, damaged one.

        None without files; InputError if all are damaged.
        """
        damaged: list[str] = []
        for saved in self.saved():
            try:
                return saved.step, _read(saved.path), damaged
            except InputError as error:
                damaged.append(str(error))
        if damaged:
            raise InputError(
                f"{self.folder}: none of the {len(damaged)} training checkpoints can be read ({damaged[0]}); restore "
                "one of them from a copy, or remove them and start again"
            )
        return None

    def saved(self) -> list[Saved]:
        """Files with the name of a training checkpoint, the highest step first."""
        if not self.folder.is_dir():
            return []
        named = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((Saved(int(match[1]), path) for match, path in named if match and path.is_file()), reverse=True)

    def _tidy(self, step: int, path: Path) -> None:
        """Removes files that are no longer needed, after `path` is on the disk."""
        older = [saved for saved in self.saved() if saved.step < step]
        kept = {path, *(saved.path for saved in older[: self.keep - 1])}
        for saved in self.saved():
            if saved.path not in kept:
                saved.path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The content of a training checkpoint. Raises InputError if it is damaged."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if error.errno != errno.EIO:  # a missing permission is not damage
            raise
        raise InputError(f"{path}: the disk cannot read it") from error
    if not path.stem.endswith(digest[:16]):
        raise InputError(f"{path}: damaged ({path.stat().st_size} bytes that do not match the checksum in its name)")
    refuse_bombs(path)
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except MemoryError:
        raise
    except Exception as error:  # torch raises many kinds here: zip, pickle, key, end of file
        raise InputError(f"{path}: not a file of torch.save, or with unsafe content") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: contains a {type(content).__name__}, not a training checkpoint")
    return content


def _check_plain(value: Any, where: str) -> None:
    """Refuses values that can be written, but not read with `weights_only`, such as a NumPy number."""
    kind = type(value)
    if kind in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif kind in (list, tuple):
        for number, item in enumerate(value):
            _check_plain(item, f"{where}[{number}]")
    elif kind not in _PLAIN:
        raise TypeError(
            f"{where} is a {kind.__module__}.{kind.__qualname__}, which a training checkpoint cannot contain"
        )
