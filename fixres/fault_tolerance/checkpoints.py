"""Where a run's states lie on disk, so that it can be continued from the newest one that is whole.

The first 16 hex digits of a file's SHA-256 stand in its name, `state-00001234-0123456789abcdef.pt`, so that one rename
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
from pipelines.runtime.atomic_files import os_errors_name, put_in_place, sync
from pipelines.spec import InputError

STATES = "states"
_NAME = re.compile(r"state-([0-9]{8,18})-([0-9a-f]{16})\.pt")
_PARTIAL = ".state.partial"
_PLAIN = (int, float, str, bool, type(None), Tensor, nn.Parameter)


class Saved(NamedTuple):
    """A file whose name is that of a state; what is in it is another question.

    Attributes:
        step: of the state.
        path: the file.
        best: it has the highest step, so `StateFiles.newest` tries it first.
    """

    step: int
    path: Path
    best: bool


class StateFiles:
    """The states of one run in one folder. Only one process may write there, see `run_lock`.

    Args:
        folder: made when first written to.
        keep: states that stay, at least 1. With 2, one that the disk damages costs a step back, not the run.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 1:
            raise InputError(f"keep={keep} must be at least 1, or there is nothing to resume from")
        self.folder, self.keep = folder, keep

    def write(self, step: int, content: dict[str, Any]) -> Path:
        """Writes a state; when this returns it is on the disk, and all but the newest `keep` are gone.

        A state of the same step is replaced. States of later steps go, too: they were passed over as damaged or belong
        to a run that was given up, and would hide this one.

        Args:
            step: at least 0, higher than those before; the order of the states.
            content: tensors, numbers, strings, None, bools, and lists, tuples and dicts of them.

        Raises:
            OSError: the disk is full or fails; the older states are as they were.
            TypeError: something in `content` could not be read back.
        """
        _check_plain(content, "content")
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            sync(self.folder.parent)
        partial = self.folder / _PARTIAL  # always the same name, so that what a killed process left is overwritten
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
        """The state of the highest step that is whole.

        Returns:
            Its step, its content on the CPU, and a line for each damaged one of a higher step; None if there is no
            state at all.

        Raises:
            InputError: there are states, but all are damaged.
        """
        passed: list[str] = []
        for saved in self.saved():
            try:
                return saved.step, _read(saved.path), passed
            except InputError as error:
                passed.append(str(error))
        if passed:
            raise InputError(
                f"{self.folder}: none of its {len(passed)} states can be read ({passed[0]}); bring back one of them "
                "from a copy, or remove them and start again"
            )
        return None

    def saved(self) -> list[Saved]:
        """What looks like a state, by step, the highest first."""
        if not self.folder.is_dir():
            return []
        named = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        found = sorted(((int(match[1]), path) for match, path in named if match and path.is_file()), reverse=True)
        return [Saved(step, path, number == 0) for number, (step, path) in enumerate(found)]

    def _tidy(self, step: int, path: Path) -> None:
        """Removes what `path` makes superfluous; only now, when it is sure to be there."""
        older = [saved for saved in self.saved() if saved.step < step]
        kept = {path, *(saved.path for saved in older[: self.keep - 1])}
        for saved in self.saved():
            if saved.path not in kept:
                saved.path.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    """The content of a state. Raises InputError if it is damaged."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if error.errno != errno.EIO:  # a folder that may not be read is no damage
            raise
        raise InputError(f"{path}: the disk cannot read it back") from error
    if not path.stem.endswith(digest[:16]):
        raise InputError(f"{path}: damaged ({path.stat().st_size} bytes that do not match the checksum in its name)")
    refuse_bombs(path)
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except MemoryError:
        raise
    except Exception as error:  # torch raises a dozen kinds here: zip, pickle, key, end of file
        raise InputError(f"{path}: no file of torch.save, or with unsafe content") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a state")
    return content


def _check_plain(value: Any, where: str) -> None:
    """A NumPy number, say, could be written but never read with `weights_only`; better known before than after."""
    kind = type(value)
    if kind in (dict, OrderedDict):
        for key, item in value.items():
            _check_plain(key, f"a key of {where}")
            _check_plain(item, f"{where}[{key!r}]")
    elif kind in (list, tuple):
        for number, item in enumerate(value):
            _check_plain(item, f"{where}[{number}]")
    elif kind not in _PLAIN:
        raise TypeError(f"{where} is a {kind.__module__}.{kind.__qualname__}, which a state file cannot hold")
