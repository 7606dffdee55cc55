"""Digests of stored images: by content for a resumed run, by file times for the conversion cache and a running one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from fixres.pipelines.formats.hidden_names import is_hidden
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.spec import InputError

_ENDS = 1 << 16  # bytes at both ends of a file: .beton files have their tables there


def fingerprint(paths: list[Path]) -> str:
    """16 hex digits of the content of files or folders, independent of their paths and times.

    It covers the size and both ends of each file. In folders it covers all names, and the content of .tar and .beton
    files only. An image that was overwritten in the middle is not noticed; `convert_imagenet.py --verify` checks all
    images.

    Args:
        paths: files or folders; their order matters.
    """
    digest = hashlib.sha256()
    for path in paths:
        for name, file in _entries(path):
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
            if file is not None:
                digest.update(_ends(file))
    return digest.hexdigest()[:16]


def _entries(path: Path) -> Iterator[tuple[str, Path | None]]:
    """Yields all names inside, sorted, and the path of each file to read."""
    if path.is_file():
        yield "", path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        relative = os.path.relpath(folder, path)
        for name in sorted(name for name in names if not is_hidden(name)):
            file = Path(folder, name)
            yield os.path.join(relative, name), file if name.endswith((".tar", ".beton")) and file.is_file() else None


def _ends(file: Path) -> bytes:
    with open(file, "rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        head = opened.read(_ENDS)
        opened.seek(max(0, size - _ENDS))
        return size.to_bytes(8, "little") + head + opened.read(_ENDS)


def files_digest(source: FilesSource) -> str:
    """64 hex digits of the relative names, sizes and modification times of all images.

    A missing file does not raise an error here; the conversion reports it.
    """
    digest = hashlib.sha256()
    for file in source.files:
        try:
            status = os.stat(file)
            size, time = status.st_size, status.st_mtime_ns
        except OSError:
            size, time = -1, -1
        name = os.path.relpath(file, source.path)
        digest.update(f"{name}\0{size}\0{time}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def short_digest(text: str) -> str:
    """10 hex digits for names of generated files."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


class Unchanged:
    """Notices that files are replaced or changed while a run reads them.

    Args:
        paths: files and folders; the files in a folder are not checked.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._seen = {path: _stat(path) for path in paths}

    def check(self) -> None:
        """Raises InputError if one of the paths was replaced, changed or removed since."""
        for path, seen in self._seen.items():
            if _stat(path) != seen:
                raise InputError(
                    f"{path} was changed or replaced while the run reads it; restore the old file and use "
                    "--resume auto, or start again"
                )


def _stat(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if path.is_dir():
        return found.st_dev, found.st_ino
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
