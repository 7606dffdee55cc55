"""Joins an index file and the journals beside it: in memory to read them, and on disk into a new index file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.pipelines.crop_index.index_file import STAMP, IndexFile, Tables, write_index
from fixres.pipelines.crop_index.journal import Journal, journals_of, read_journal
from fixres.pipelines.crop_index.records import ENTRY
from fixres.pipelines.runtime.atomic_files import atomic_file
from fixres.pipelines.runtime.locks import acquire, release

_TRIES, _REMEDY = 10, "fixres index FOLDER --overwrite"


class Loaded(NamedTuple):
    """The records of an index file and journals, without the outdated ones.

    Attributes:
        tables: the index that they make. `body_start` counts in the memory that the body lies in.
        memories: of the files that were read.
        memory_of: int64 (n,): which of the memories holds each entry's body.
    """

    tables: Tables
    memories: list[memoryview]
    memory_of: np.ndarray


def load(places: Sequence[Path], keep: Callable[[bytes], bool] | None = None, remedy: str = _REMEDY) -> Loaded:
    """Reads indexes and their journals.

    Args:
        places: of the indexes; of the records of one image, the last counts.
        keep: tells by the name of a file whether its entries are kept; all are by default.
        remedy: the command that makes them again, for errors.

    Raises:
        InputError: an index is damaged.
    """
    for _ in range(_TRIES - 1):
        # A process that merges the journals removes them after it has put the new index in place.
        with suppress(FileNotFoundError):
            return _load(places, keep, remedy)
    return _load(places, keep, remedy)


def _load(places: Sequence[Path], keep: Callable[[bytes], bool] | None, remedy: str) -> Loaded:
    joined = _Joined()
    for place in places:
        journals = journals_of(place)  # listed before the index is opened
        with suppress(NotADirectoryError):
            if place.exists():
                joined.add_index(IndexFile(place, remedy))
        for path in journals:
            if (journal := read_journal(path)) is not None:
                joined.add_journal(journal)
    return joined.result(keep)


class _Joined:
    """Collects records; later ones replace earlier ones of the same image, and all of a file that was changed."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._memories: list[memoryview] = []
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []  # entries and stamps of their files

    def add_index(self, index: IndexFile) -> None:
        names, stamps, entries = index.tables
        numbers = np.array([self._number(name) for name in names], np.int64)
        files = entries["file"]
        entries = entries.copy()
        entries["file"] = numbers[files]
        self._add(index.memory, entries, stamps[files])

    def add_journal(self, journal: Journal) -> None:
        journal.entries["file"] = [self._number(name) for name in journal.names]
        self._add(journal.memory, journal.entries, journal.stamps)

    def _number(self, name: bytes) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    def _add(self, memory: memoryview, entries: np.ndarray, stamps: np.ndarray) -> None:
        self._memories.append(memory)
        self._parts.append((entries, stamps))

    def result(self, keep: Callable[[bytes], bool] | None) -> Loaded:
        entries = np.concatenate([np.empty(0, ENTRY), *(part for part, _ in self._parts)])
        stamps = np.concatenate([np.empty(0, STAMP), *(part for _, part in self._parts)])
        memory_of = np.repeat(np.arange(len(self._parts)), [len(part) for part, _ in self._parts])
        names = list(self._numbers)
        newest = np.zeros(len(names), STAMP)
        newest[entries["file"]] = stamps  # of several assignments, the last one counts
        wanted = stamps == newest[entries["file"]]
        if keep is not None:
            wanted &= np.array([keep(name) for name in names], bool)[entries["file"]]
        order = _last_of_each(entries, np.flatnonzero(wanted))
        return _sorted(names, newest, entries[order], self._memories, memory_of[order])


def _last_of_each(entries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of rows that have the same file and item, the last of those with the image's size, or else the last.

    Only the maker of a coarse level knows the size of an image that is no JPEG; a process that trains does not.
    """
    has_size = entries["height"][rows] > 0
    order = rows[np.lexsort((rows, has_size, entries["item"][rows], entries["file"][rows]))]
    file, item = entries["file"][order], entries["item"][order]
    is_last = np.ones(len(order), bool)
    is_last[:-1] = (file[1:] != file[:-1]) | (item[1:] != item[:-1])
    return order[is_last]


def _sorted(
    names: list[bytes], stamps: np.ndarray, entries: np.ndarray, memories: list[memoryview], memory_of: np.ndarray
) -> Loaded:
    """Numbers the files by the order of their names, leaves out those without entries, and sorts the entries."""
    used = np.unique(entries["file"]).tolist()
    used.sort(key=names.__getitem__)
    number = np.zeros(len(names), np.int64)
    number[used] = np.arange(len(used))
    entries["file"] = number[entries["file"]]
    order = np.lexsort((entries["item"], entries["file"]))
    tables = Tables([names[k] for k in used], stamps[used], entries[order])
    return Loaded(tables, memories, memory_of[order])


def merge(place: Path, keep: Callable[[bytes], bool] | None = None, remedy: str = _REMEDY) -> bool:
    """Merges the journals whose writers have ended into the index at `place`, and removes them.

    Args:
        place: of the index.
        keep, remedy: see `load`; entries of files that are not kept are removed.

    Returns:
        False if another process is merging now.

    Raises:
        InputError: the index is damaged.
        OSError: the disk is full or fails; nothing is lost.
    """
    with ExitStack() as locks:
        if not locks.enter_context(_locked(place.parent)):
            return False
        # The locks are kept, so that no process begins to write a journal that will be removed.
        ended = [path for path in journals_of(place) if locks.enter_context(_locked(path))]
        if not ended and (keep is None or not place.exists()):
            return True
        loaded = load([place], keep, remedy)
        with atomic_file(place, overwrite=True) as partial:
            write_index(partial, loaded.tables, _bodies(loaded))
        for path in ended:
            path.unlink(missing_ok=True)
        return True


def _bodies(loaded: Loaded) -> Iterator[memoryview]:
    entries = loaded.tables.entries
    for memory, start, size in zip(
        loaded.memory_of.tolist(), entries["body_start"].tolist(), entries["body_size"].tolist(), strict=True
    ):
        yield loaded.memories[memory][start : start + size]


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Holds the lock of a folder or a journal in the block, or tells that another process has it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        yield acquire(descriptor, seconds=0)
    finally:
        release(descriptor)
