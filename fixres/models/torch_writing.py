"""torch.save with errors a user can act on, and with a checksum of what was written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import IO, Any

import torch


def save_hashed(content: Any, path: Path) -> str:
    """Writes `content` to `path` as torch.save does; no second copy of it is made in host memory.

    Returns:
        SHA-256 of the file, in hex.

    Raises:
        OSError: the disk is full, or fails. torch.save alone turns that into a RuntimeError about positions.
    """
    with open(path, "wb") as file:
        writer = _Hashing(file)
        try:
            torch.save(content, writer)
        except Exception:
            if writer.error is not None:
                raise writer.error from None
            raise
    return writer.hash.hexdigest()


class _Hashing:
    """A file that torch.save writes to, from front to back; remembers the error that torch hides."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.hash.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()
