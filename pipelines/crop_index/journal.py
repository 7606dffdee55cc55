"""Journals: what processes append to an index while they train or index, one file for each process.

A journal lies beside the index as `.fixres-index.HOST-PID-RANDOM.part`. Its writer holds its lock until it ends; the
operating system releases the lock of a killed process. The next process that opens the index takes all complete records
of all journals, and merges those without a writer into the index (`merging`).
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.pipelines.crop_index.index_file import STAMP, are_possible
from fixres.pipelines.crop_index.records import DIGEST_BYTES, Record, pack, unpack, walk
from fixres.pipelines.formats.mmap_files import map_file
from fixres.pipelines.runtime.atomic_files import open_own
from fixres.pipelines.runtime.locks import acquire, release
from fixres.pipelines.spec import InputError

HEADER = b"FIXRESJ1"
_TRIES = 10


class JournalWriter:
    """Appends records to a new journal. Threads may share it; a forked child must open its own.

    Attributes:
        path: the journal.
    """

    def __init__(self, place: Path) -> None:
        """Creates the journal of this process for the index at `place`. Raises OSError if that is not possible."""
        self._lock, self._size = threading.Lock(), len(HEADER)
        place.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            name = f"{place.name}.{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.part"
            self.path = place.with_name(name)
            self._descriptor = open_own(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            # A process that merges may have taken the file for one without a writer, and have removed it.
            if acquire(self._descriptor) and self.path.exists():
                break
            release(self._descriptor)
        os.write(self._descriptor, HEADER)

    def append(self, records: list[Record]) -> list[int]:
        """Appends records with one write; returns where their bodies begin in the journal.

        Raises:
            OSError: the disk is full or fails. The journal ends before these records then; close it.
        """
        packed = pack(records)
        with self._lock:
            stops = list(accumulate(map(len, packed), initial=self._size))
            if os.write(self._descriptor, b"".join(packed)) < stops[-1] - self._size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            self._size = stops[-1]
        return [stop - DIGEST_BYTES - len(one.body) for stop, one in zip(stops[1:], records, strict=True)]

    def read(self, start: int, size: int) -> bytes:
        """Bytes that were written."""
        return os.pread(self._descriptor, size, start)

    def close(self) -> None:
        """Releases the lock; an empty journal is removed, others stay until they are merged."""
        if self._size == len(HEADER):
            self.path.unlink(missing_ok=True)
        release(self._descriptor)


class Journal(NamedTuple):
    """A journal's complete records, in the order in which they were written.

    Attributes:
        memory: the file.
        names: of the images' files.
        stamps: `STAMP` (n,), of these files.
        entries: `ENTRY` (n,); the bodies begin in `memory`.
    """

    memory: memoryview
    names: list[bytes]
    stamps: np.ndarray
    entries: np.ndarray


def journals_of(place: Path) -> list[Path]:
    """The journals of the index at `place`, the oldest first."""
    found = []
    for path in place.parent.glob(f"{place.name}.*.part"):
        with suppress(OSError):  # merged just now
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def _map(path: Path) -> memoryview | None:
    for _ in range(_TRIES):
        with suppress(InputError):  # it was appended to while it was opened
            try:
                return map_file(path)
            except ValueError:
                break
    return None


def read_journal(path: Path) -> Journal | None:
    """Reads a journal, whether its writer runs or not; None if it is empty or no journal."""
    memory = _map(path)
    if memory is None or memory[: len(HEADER)] != HEADER:
        return None
    starts = walk(np.frombuffer(memory, np.uint8), len(HEADER)).tolist()
    if not starts:
        return None
    found = unpack(memory, starts)
    good = np.flatnonzero(are_possible(found.entries) & (found.entries["body_size"] == found.body_sizes))
    entries = found.entries[good]
    entries["body_start"] = found.body_starts[good]
    stamps = np.array(found.stamps, STAMP)[good]
    return Journal(memory, [found.names[k] for k in good.tolist()], stamps, entries)
