"""Where the files in a tar archive lie, found from its headers alone; the archive may lie in another one.

tarfile parses the headers. What it forgives is an error here: an archive that is cut off or damaged in the middle ends
for tarfile as if it were whole. What would harm is cut short: headers of gigabytes, and sizes that lead backwards.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from pipelines.spec import InputError

_BLOCK = 512
_MAX_READ = 1 << 20  # tarfile reads headers only; the longest proper one is a name
_MAX_PADDING = 1 << 20  # writers fill archives up with zeros, GNU tar to 10 KiB


class Member(NamedTuple):
    """A file in an archive.

    Attributes:
        name: as stored, without a leading "./"; never to be written to.
        offset: position of its bytes in the outermost file.
        size: in bytes.
    """

    name: str
    offset: int
    size: int


class Archive(Protocol):
    """What `walk` needs: a binary file that knows its size."""

    size: int

    def read(self, size: int = -1) -> bytes: ...

    def seek(self, offset: int, whence: int = 0) -> int: ...

    def tell(self) -> int: ...


class Span:
    """Bytes [start, start + size) of an open file as a file of their own. Shares no position with other spans."""

    def __init__(self, descriptor: int, start: int = 0, size: int | None = None) -> None:
        """Takes an open file.

        Args:
            descriptor: of the file; stays the caller's to close.
            start: in bytes.
            size: in bytes; to the file's end if None.
        """
        self._descriptor, self._start, self._position = descriptor, start, 0
        self.size = os.fstat(descriptor).st_size - start if size is None else size

    def read(self, size: int = -1) -> bytes:
        """Up to `size` bytes from the position on; refuses more than a header can have."""
        if not 0 <= size <= _MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        wanted = max(0, min(size, self.size - self._position))
        data = os.pread(self._descriptor, wanted, self._start + self._position)
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Sets the position, counted from the start."""
        assert whence == io.SEEK_SET
        if offset < 0:
            raise tarfile.ReadError("a size below 0")
        self._position = offset
        return offset

    def tell(self) -> int:
        """The position, counted from the start."""
        return self._position


class Memory(io.BytesIO):
    """Bytes in memory that know their size."""

    @property
    def size(self) -> int:
        return self.getbuffer().nbytes


def walk(archive: Archive, name: str, start: int = 0) -> Iterator[Member]:
    """The files in `archive`, in stored order. Folders are passed over, links and holes refused.

    Args:
        archive: a plain tar archive.
        name: of the archive, for errors.
        start: added to the offsets, for an archive that lies in another.

    Raises:
        InputError: no plain tar archive, cut off, damaged, or with members that are no files.
    """
    try:
        with tarfile.open(fileobj=archive, mode="r:") as tar:  # type: ignore[arg-type]
            end = 0
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all, 1 KB each
                if member.size < 0 or tar.offset <= end:
                    raise InputError(f"{name}: damaged, member {member.name!r} leads backwards; download it again")
                if member.offset_data + member.size > archive.size:
                    raise InputError(f"{name}: cut off in the middle of member {member.name!r}; download it again")
                end = tar.offset
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise InputError(f"{name}: member {member.name!r} is a link or has holes; pack plain files")
                yield Member(member.name.removeprefix("./"), start + member.offset_data, member.size)
            _check_end(archive, tar.offset, name)
    except (tarfile.TarError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{name}: no readable tar file ({error}); it is damaged, cut off, or compressed and must be unpacked"
        ) from None


def _check_end(archive: Archive, offset: int, name: str) -> None:
    """The walk must have ended at zeros, and nothing may follow but more of them."""
    archive.seek(offset)
    mark = archive.read(_BLOCK)
    if len(mark) < _BLOCK:
        raise InputError(f"{name}: cut off after {archive.size} bytes, its end mark is missing; download it again")
    if any(mark):
        raise InputError(f"{name}: damaged at byte {offset}, where a member should begin; download it again")
    rest = archive.size - offset - _BLOCK
    if rest > _MAX_PADDING or any(archive.read(rest)):
        raise InputError(
            f"{name}: goes on after its end mark, as when archives are joined with cat; unpack it with tar"
            " --ignore-zeros and pack it again"
        )


def is_litter(name: str) -> bool:
    """Whether a member is what macOS adds to archives."""
    base = name.rpartition("/")[2]
    return base.startswith("._") or base == ".DS_Store"


def is_plain(name: str) -> bool:
    """Whether `name` can stand for one file or folder: no path, not "." or "..", nothing unprintable."""
    return name not in ("", ".", "..") and "/" not in name and "\\" not in name and name.isprintable()
