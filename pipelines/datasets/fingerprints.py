"""Whether stored images are the ones they were: by content when a run goes on, by the file system while it runs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.spec import InputError

_ENDS = 1 << 16  # bytes at both ends of a file: .beton files have their tables there


def fingerprint(paths: list[Path]) -> str:
    """16 hex digits of what is stored, wherever it lies and whenever it was copied there.

    Of each file its size and both ends are read; of folders the names, and of folders of few large files (shards) the
    files, too. An image that was overwritten in the middle is not noticed: checksums of all images are for
    `convert_imagenet.py --verify`.

    Args:
        paths: files or folders, in an order that means something.
    """
    digest = hashlib.sha256()
    for path in paths:
        for name, file in _entries(path):
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
            if file is not None:
                digest.update(_ends(file))
    return digest.hexdigest()[:16]


def _entries(path: Path) -> Iterator[tuple[str, Path | None]]:
    """Names inside, sorted, and the files to look into."""
    if path.is_file():
        yield "", path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        relative = os.path.relpath(folder, path)
        for name in sorted(names):
            yield os.path.join(relative, name), Path(folder, name) if name.endswith((".tar", ".beton")) else None


def _ends(file: Path) -> bytes:
    with open(file, "rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        head = opened.read(_ENDS)
        opened.seek(max(0, size - _ENDS))
        return size.to_bytes(8, "little") + head + opened.read(_ENDS)


class Unchanged:
    """Remembers files as the file system sees them.

    Args:
        paths: files; of folders only the folder itself is looked at.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._seen = {path: _look(path) for path in paths}

    def check(self) -> None:
        """Raises InputError if one of them was replaced, changed or removed since."""
        for path, seen in self._seen.items():
            if _look(path) != seen:
                raise InputError(
                    f"{path} was changed or replaced while the run reads it; bring the old file back and go on with "
                    "--resume auto, or start afresh"
                )


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    if path.is_dir():
        return found.st_dev, found.st_ino
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
