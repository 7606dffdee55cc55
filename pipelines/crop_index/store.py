"""What one index file and its journals hold of the images of a source, and what this process adds to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from fixres.pipelines.crop_index.index_file import STAMP
from fixres.pipelines.crop_index.journal import JournalWriter
from fixres.pipelines.crop_index.location import Places
from fixres.pipelines.crop_index.merging import Loaded, load, merge
from fixres.pipelines.crop_index.records import ENTRY, FileStamp, Record, digests
from fixres.pipelines.formats.samples import ImagePlaces
from fixres.pipelines.runtime.atomic_files import os_errors_name
from fixres.pipelines.runtime.notices import notice
from fixres.pipelines.spec import InputError

_NOWHERE, _JOURNAL = -2, -1  # instead of the number of a memory


class Found(NamedTuple):
    """What is known of some images.

    Attributes:
        entries: `ENTRY` (n,).
        stamps: `STAMP` (n,), of their files when they were read.
        memory_of: int32 (n,): which of the memories holds each body.
        memories: of the files that were read.
        checked: bool (N,), of all images of the source: whether the digest of the body has been compared.
    """

    entries: np.ndarray
    stamps: np.ndarray
    memory_of: np.ndarray
    memories: list[memoryview]
    checked: np.ndarray

    @property
    def is_known(self) -> np.ndarray:
        """bool (n,). Of other images all is without meaning."""
        return self.memory_of != _NOWHERE

    def of(self, rows: np.ndarray) -> Found:
        """The same of some of the images."""
        return Found(self.entries[rows], self.stamps[rows], self.memory_of[rows], self.memories, self.checked)


class Store:
    """A record of each image of a source. Threads may share it; after a fork, the child reads the records again.

    Attributes:
        places: where they are read and written.
        remedy: the command that makes them again.
        may_write: whether records can be added.
        must_write: raise errors of the disk; else training continues without what cannot be written.
    """

    def __init__(self, images: ImagePlaces, names: Sequence[bytes], places: Places, remedy: str) -> None:
        """Reads what is known of the images, and merges the journals of processes that have ended.

        Args:
            images: where they lie.
            names: of their files in the index.
            places, remedy: see above.

        Raises:
            InputError: the index is damaged.
        """
        self._images, self._names, self.places, self.remedy = images, names, places, remedy
        self._lock = threading.Lock()
        self._journal: JournalWriter | None = None
        self.may_write, self.must_write, self._process = True, False, os.getpid()
        self.read()

    def read(self) -> None:
        """Takes over what other processes have added."""
        self._merge()
        loaded, num = load(self.places.read, remedy=self.remedy), len(self._images.item)
        self._memories = loaded.memories
        self._entries, self._stamps = np.zeros(num, ENTRY), np.zeros(num, STAMP)
        self._memory_of, self._checked = np.full(num, _NOWHERE, np.int32), np.zeros(num, bool)
        known, rows = _rows(loaded, self._names, self._images)
        self._entries[known], self._memory_of[known] = loaded.tables.entries[rows], loaded.memory_of[rows]
        self._stamps[known] = loaded.tables.stamps[loaded.tables.entries["file"][rows]]

    def find(self, indices: np.ndarray | slice = slice(None)) -> Found:
        """What is known of some images, or of all."""
        with self._lock:
            if self._process != os.getpid():
                self._journal, self._process = None, os.getpid()
                self.read()
            known = self._entries[indices], self._stamps[indices], self._memory_of[indices]
            return Found(*known, self._memories, self._checked)

    def bodies(self, indices: np.ndarray, found: Found) -> list[bytes | memoryview]:
        """The bodies of known images.

        Args:
            indices: int64 (n,).
            found: of these images.

        Raises:
            InputError: one is damaged.
        """
        spans = zip(*(found.entries[name].tolist() for name in ("body_start", "body_size")), strict=True)
        bodies: list[bytes | memoryview] = []
        for memory, (start, size) in zip(found.memory_of.tolist(), spans, strict=True):
            if memory == _JOURNAL:
                assert self._journal is not None
                bodies.append(self._journal.read(start, size))
            else:
                bodies.append(found.memories[memory][start : start + size])
        new = np.flatnonzero(~found.checked[indices])
        if len(new):
            is_good = digests(*join([bodies[k] for k in new.tolist()])) == found.entries["body_digest"][new]
            if not is_good.all():
                path = self._images.paths[self._images.file_of[indices[new[~is_good][0]]]]
                raise InputError(f"{path}: what the index holds of it is damaged; make it again: {self.remedy}")
            found.checked[indices[new]] = True
        return bodies

    def add(self, indices: np.ndarray, stamps: np.ndarray, entries: np.ndarray, bodies: Sequence[bytes]) -> None:
        """Appends records of images to the journal. If that is not possible, training continues without them.

        Raises:
            OSError: the disk is full or fails, and `must_write` is set.
        """
        files = self._images.file_of[indices].tolist()
        with self._lock:
            if not self.may_write or not files:
                return
            records = [
                Record(self._names[file], FileStamp(*stamp), entry, body)
                for file, stamp, entry, body in zip(files, stamps.tolist(), entries, bodies, strict=True)
            ]
            try:
                with os_errors_name(self.places.written):
                    if self._journal is None:
                        self._journal = JournalWriter(self.places.written)
                    starts = self._journal.append(records)
            except OSError as error:
                self.may_write = False
                if self.must_write:
                    raise
                self._say(error)
                return
            entries["body_start"] = starts
            self._entries[indices], self._stamps[indices], self._memory_of[indices] = entries, stamps, _JOURNAL
            self._checked[indices] = False

    def _merge(self) -> None:
        try:
            merge(self.places.written, remedy=self.remedy)
        except OSError as error:
            if not self.must_write:  # then a later write fails, too, and nothing is lost
                self._say(error)

    def _say(self, error: OSError) -> None:
        notice(f"{self.places.written}: the index cannot be written ({error.strerror}); images are scanned again")

    def finish(self, keep: Callable[[bytes], bool]) -> None:
        """Ends this process's journal, merges it into the index, and removes entries of files that are not kept.

        Raises:
            OSError: the disk is full or fails.
        """
        with self._lock:
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            while not merge(self.places.written, keep, self.remedy):
                time.sleep(0.1)  # another process merges
            self.read()

    def close(self) -> None:
        """Ends this process's journal, and merges it into the index unless another process is merging."""
        with self._lock:
            if self._journal is not None and self._process == os.getpid():
                self._journal.close()
                self._journal, self.may_write = None, False
                self._merge()


def join(parts: Sequence[bytes | memoryview]) -> tuple[np.ndarray, np.ndarray]:
    """Parts one behind the other, uint8, and int64 (n, 2): where each begins, and its bytes."""
    sizes = np.array([len(part) for part in parts], np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), np.column_stack([np.cumsum(sizes) - sizes, sizes])


def _rows(loaded: Loaded, names: Sequence[bytes], images: ImagePlaces) -> tuple[np.ndarray, np.ndarray]:
    """Which images have entries, int64 (n,), and the rows of these entries, int64 (n,)."""
    number = {name: k for k, name in enumerate(loaded.tables.names)}
    file = np.array([number.get(name, -1) for name in names], np.int64)[images.file_of]
    entries = loaded.tables.entries
    items, places = np.unique(np.concatenate([entries["item"], images.item]), return_inverse=True)
    keys = entries["file"].astype(np.int64) * len(items) + places[: len(entries)]  # increasing
    wanted = file * len(items) + places[len(entries) :]
    at = np.searchsorted(keys, wanted)
    known = np.flatnonzero((file >= 0) & (np.append(keys, -1)[at] == wanted))
    return known, at[known]
