"""Finds the positions of files in a tar archive from its headers. The archive may be a member of another one.

tarfile parses the headers. Damage that it ignores is an error here: for tarfile, an archive that is truncated or
damaged in the middle ends there. Headers of gigabytes and negative sizes are refused.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fixres.pipelines.spec import BadSampleError, InputError

_BLOCK = 512
_MAX_READ = 1 << 20  # tarfile reads headers only; the longest proper one is a name
_MAX_PADDING = 1 << 20  # writers pad archives with zeros, GNU tar to 10 KiB


class Member(NamedTuple):
    """A file in an archive."""

    name: str  # as stored, without a leading "./"; untrusted, so it must not be used as a path to write to
    offset: int  # position of its bytes in the outermost file
    size: int  # in bytes


class Span:
    """Bytes [start, start + size) of an open file as a file with its own position."""

    def __init__(self, descriptor: int, start: int = 0, size: int | None = None) -> None:
        """Wraps an open file, which the caller closes. The span ends with the file if `size` is None."""
        self._descriptor, self._start, self._position = descriptor, start, 0
        self.size = os.fstat(descriptor).st_size - start if size is None else size

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from the position; refuses more than a header can have."""
        if not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        wanted = max(0, min(size, self.size - self._position))
        data = os.pread(self._descriptor, wanted, self._start + self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position, relative to the span's start."""
        assert whence == io.SEEK_SET
        if offset < 0:
            raise tarfile.ReadError("a size below 0")
        self._position = offset
        return offset

    def tell(self) -> int:
        """The position, relative to the span's start."""
        return self._position


class Memory(io.BytesIO):
    """Bytes in memory, with their size."""

    @property
    def size(self) -> int:
        return self.getbuffer().nbytes


def walk(archive: Span | Memory, name: str, start: int = 0) -> Iterator[Member]:
    """The files in `archive`, in stored order. Skips folders, refuses links and sparse files.

    Args:
        archive: a plain tar archive.
        name: of the archive, for errors.
        start: added to the offsets, for an archive inside another one.

    Raises:
        InputError: the archive is not plain tar, is truncated or damaged, or has members that are not files.
    """
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:  # type: ignore[arg-type]
            end = 0
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all, 1 KB each
                if member.size < 0 or tar.offset <= end:
                    raise InputError(f"{name}: damaged, member {member.name!r} points backwards; download it again")
                if member.offset_data + member.size > archive.size:
                    raise InputError(f"{name}: truncated in the middle of member {member.name!r}; download it again")
                end = tar.offset
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise InputError(f"{name}: member {member.name!r} is a link or a sparse file; pack plain files")
                yield Member(member.name.removeprefix("./"), start + member.offset_data, member.size)
            _check_end(archive, tar.offset, name)
    except (tarfile.TarError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{name}: not a readable tar file ({error}): it is damaged, truncated, or compressed and must be unpacked"
        ) from None


def read_member(archive: Path, offset: int, size: int, name: str, index: int) -> bytes:
    """The bytes of sample `index`, which is called `name` in errors; raises BadSampleError if they cannot be read."""
    try:
        with open(archive, "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise BadSampleError(f"{name}: cannot be read ({error.strerror})", index) from None
    if len(data) < size:
        raise BadSampleError(f"{name}: the archive has become shorter", index)
    return data


def _check_end(archive: Span | Memory, offset: int, name: str) -> None:
    """Checks that the last member is followed by zeros only."""
    archive.seek(offset)
    mark = archive.read(_BLOCK)
    if len(mark) < _BLOCK:
        raise InputError(f"{name}: truncated after {archive.size} bytes, its end mark is missing; download it again")
    if any(mark):
        raise InputError(f"{name}: damaged at byte {offset}, where a member should begin; download it again")
    rest = archive.size - offset - _BLOCK
    if rest > _MAX_PADDING or any(archive.read(rest)):
        raise InputError(
            f"{name}: has data after its end mark, as archives joined with cat have; unpack it with tar"
            " --ignore-zeros and pack it again"
        )


def is_plain(name: str) -> bool:
    """Whether `name` can name one file or folder: not a path, not "." or "..", only printable characters."""
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name and name.isprintable()
