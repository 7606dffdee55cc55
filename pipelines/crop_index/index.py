"""The index of a source's images: what is known of each, and what this process adds to it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.crop_index.index_file import STAMP
from fixres.pipelines.crop_index.journal import JournalWriter
from fixres.pipelines.crop_index.location import Places, home_of, places_of
from fixres.pipelines.crop_index.merging import Loaded, load, merge
from fixres.pipelines.crop_index.records import ENTRY, FileStamp, Record, digest, digests, make_entries, samples_of
from fixres.pipelines.formats.samples import ImagePlaces
from fixres.pipelines.runtime.notices import notice
from fixres.pipelines.spec import InputError, Source

_NOWHERE, _JOURNAL = -2, -1  # instead of the number of a memory


class Checkpoints(NamedTuple):
    """The checkpoints of some images, as the kernels take them.

    Attributes:
        samples: int64 (n, 10), the columns of `checkpoints`.
        words: uint16, of all samples.
    """

    samples: np.ndarray
    words: np.ndarray


class CropIndex:
    """The index of the images of a source. Threads may share it; after a fork, the child reads the index again.

    Attributes:
        places: where it is read and written.
        remedy: the command that makes it again.
    """

    def __init__(self, source: Source, places: Places | None = None) -> None:
        """Reads what is known of the images, and merges the journals of processes that have ended.

        Args:
            source: an opened source of files or of images in files.
            places: where the index is read and written; `places_of` the source by default.

        Raises:
            InputError: the source is of a kind that has no index, or the index is damaged.
        """
        self._images, data = _images_of(source), Path(source.path)
        self._names = _names(self._images.paths, data if data.is_dir() else data.parent)
        self._home = home_of(data) if data.is_dir() else data.parent
        self.places = places_of(data) if places is None else places
        self.remedy = f"fixres index {home_of(data)} --overwrite"
        self._lock = threading.Lock()
        self._journal: JournalWriter | None = None
        self.may_write, self._process = True, os.getpid()
        self._read()

    def __len__(self) -> int:
        return len(self._images.item)

    @property
    def num_known(self) -> int:
        """Images that the index knows, whether they have checkpoints or not."""
        return int((self._memory_of != _NOWHERE).sum())

    @property
    def entries(self) -> np.ndarray:
        """`ENTRY` (num_known,) of the known images, in their order."""
        return self._entries[self._memory_of != _NOWHERE]

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """int64 (n, 2): height and width of images with checkpoints, as far as they are known; else zeros."""
        entries = self._entries[indices]
        return np.column_stack([entries["height"], entries["width"]]).astype(np.int64)

    def kind(self, index: int) -> int:
        """The kind of an image (`checkpoints`); -1 if it is not known."""
        return -1 if self._memory_of[index] == _NOWHERE else int(self._entries["kind"][index])

    def decoded_whole(self) -> str:
        """Which share of the known images have no checkpoints, and why, in a line; "" if there are none."""
        kinds = np.bincount(self.entries["kind"], minlength=checkpoints.INDEXED + 1)
        num = int(kinds.sum() - kinds[checkpoints.INDEXED])
        reasons = [f"{kinds[kind]} {why}" for kind, why in checkpoints.REASONS.items() if kinds[kind : kind + 1].any()]
        share = f"{num} of {kinds.sum()} images ({100 * num / max(1, kinds.sum()):.1f} %)"
        return f"{share} are decoded whole: {', '.join(reasons)}" if num else ""

    def unknown(self) -> np.ndarray:
        """int64: images that the index does not know, or whose file has changed. Looks at all files."""
        stamps = np.array([_stamp(path) for path in self._images.paths], STAMP)[self._images.file_of]
        return np.flatnonzero((self._memory_of == _NOWHERE) | (self._stamps != stamps))

    def stamps(self, indices: np.ndarray) -> np.ndarray:
        """What the files of some images look like now, `STAMP` (n,); zeros for a file that cannot be read."""
        files = self._images.file_of[indices].tolist()
        now = {file: _stamp(self._images.paths[file]) for file in set(files)}
        return np.array([now[file] for file in files], STAMP)

    def refresh(self) -> None:
        """Takes over what other processes have added since, unless everything is known."""
        if self.num_known < len(self):
            self._read()

    def find(self, indices: np.ndarray, stamps: np.ndarray, data: np.ndarray, spans: np.ndarray) -> Checkpoints:
        """The checkpoints of some images. Those that are not known, or whose file has changed, are scanned and added.

        Args:
            indices: int64 (n,).
            stamps: `STAMP` (n,), what their files looked like before they were read.
            data: uint8, the images' bytes.
            spans: int64 (n, 2), where each image begins in `data`, and its bytes.

        Raises:
            InputError: the stored checkpoints of an image are damaged.
        """
        self._check_process()
        with self._lock:
            entries, memory_of, before = self._entries[indices], self._memory_of[indices], self._stamps[indices]
            memories = self._memories
        fits = (memory_of != _NOWHERE) & (entries["size"] == spans[:, 1])
        bodies: list[bytes | memoryview] = [b""] * len(indices)
        for slot in np.flatnonzero(fits).tolist():
            bodies[slot] = self._body(memories, memory_of[slot], entries[slot])
            if digest(np.frombuffer(bodies[slot], np.uint8)) != entries[slot]["body_digest"]:
                self._fail(self._images.paths[self._images.file_of[indices[slot]]])
        changed = np.flatnonzero(fits & (before != stamps))  # touched or copied, or replaced
        fits[changed] = digests(data, spans[changed]) == entries["digest"][changed]
        unknown = np.flatnonzero(~fits)
        if len(unknown):
            entries[unknown], scanned = self._scan(indices[unknown], data, spans[unknown])
            for slot, body in zip(unknown.tolist(), scanned, strict=True):
                bodies[slot] = body
        new = np.flatnonzero(~fits | (before != stamps))
        if len(new):
            self._add(indices[new], stamps[new], entries[new], [bytes(bodies[slot]) for slot in new.tolist()])
        return _joined(entries, bodies)

    def _scan(self, indices: np.ndarray, data: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, list[bytes]]:
        """Entries and bodies of images that are scanned."""
        samples, words = checkpoints.scan_batch(data, spans)
        # Of a damaged file, the room for its words is left without meaning.
        sizes = [int(checkpoints.num_words(sample)) for sample in samples]
        firsts = samples[:, checkpoints.FIRST].tolist()
        bodies = [words[first : first + size].tobytes() for first, size in zip(firsts, sizes, strict=True)]
        samples[:, checkpoints.FIRST] = np.cumsum([0, *sizes[:-1]])
        joined = np.frombuffer(b"".join(bodies), np.uint8)
        return make_entries(self._images.item[indices], data, spans, samples, joined), bodies

    def _body(self, memories: list[memoryview], memory: int, entry: np.void) -> bytes | memoryview:
        start, size = int(entry["body_start"]), int(entry["body_size"])
        if memory == _JOURNAL:
            assert self._journal is not None
            return self._journal.read(start, size)
        return memories[memory][start : start + size]

    def _add(self, indices: np.ndarray, stamps: np.ndarray, entries: np.ndarray, bodies: list[bytes]) -> None:
        """Appends records of images to the journal. If that is not possible, training continues without an index."""
        files = self._images.file_of[indices].tolist()
        with self._lock:
            if not self.may_write:
                return
            try:
                if self._journal is None:
                    self._journal = JournalWriter(self.places.written)
                starts = self._journal.append(
                    [
                        Record(self._names[file], FileStamp(*stamp.tolist()), entry, body)
                        for file, stamp, entry, body in zip(files, stamps, entries, bodies, strict=True)
                    ]
                )
            except OSError as error:
                self.may_write = False
                notice(
                    f"{self.places.written}: the index cannot be written ({error.strerror}); images are scanned again"
                )
                return
            entries["body_start"] = starts
            self._entries[indices], self._stamps[indices], self._memory_of[indices] = entries, stamps, _JOURNAL

    def _check_process(self) -> None:
        with self._lock:
            if self._process != os.getpid():
                self._journal, self._process = None, os.getpid()
                self._read()

    def _read(self) -> None:
        self._merge()
        loaded, num = load(self.places.read), len(self)
        self._memories = loaded.memories
        self._entries, self._stamps = np.zeros(num, ENTRY), np.zeros(num, STAMP)
        self._memory_of = np.full(num, _NOWHERE, np.int32)
        known, rows = _rows(loaded, self._names, self._images)
        self._entries[known], self._memory_of[known] = loaded.tables.entries[rows], loaded.memory_of[rows]
        self._stamps[known] = loaded.tables.stamps[loaded.tables.entries["file"][rows]]

    def _fail(self, path: str) -> NoReturn:
        raise InputError(f"{path}: its checkpoints in the index are damaged; make it again: {self.remedy}")

    def _merge(self) -> None:
        try:
            merge(self.places.written)
        except OSError as error:
            notice(f"{self.places.written}: the index cannot be written ({error.strerror}); images are scanned again")

    def finish(self) -> None:
        """Ends this process's journal, merges it into the index, and removes entries of files that are gone.

        Raises:
            OSError: the disk is full or fails.
        """
        names, home = set(self._names), self._home
        with self._lock:
            if self._journal is not None:
                self._journal.close()
                self._journal = None
            while not merge(
                self.places.written, lambda name: name in names or os.path.exists(home / os.fsdecode(name))
            ):
                time.sleep(0.1)  # another process merges
            self._read()

    def close(self) -> None:
        """Ends this process's journal, and merges it into the index unless another process is merging."""
        with self._lock:
            if self._journal is not None and self._process == os.getpid():
                self._journal.close()
                self._journal, self.may_write = None, False
                self._merge()


def join(images: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Images one behind the other, uint8, and int64 (n, 2): where each begins, and its bytes."""
    sizes = np.array([len(image) for image in images], np.int64)
    return np.frombuffer(b"".join(images), np.uint8), np.column_stack([np.cumsum(sizes) - sizes, sizes])


def _joined(entries: np.ndarray, bodies: Sequence[bytes | memoryview]) -> Checkpoints:
    samples, sizes = samples_of(entries), entries["words_size"].astype(np.int64)
    samples[:, checkpoints.FIRST] = (np.cumsum(sizes) - sizes) // 2
    parts = [body[:size] for body, size in zip(bodies, sizes.tolist(), strict=True)]
    return Checkpoints(samples, np.frombuffer(b"".join(parts), np.uint16))


def _images_of(source: Source) -> ImagePlaces:
    places = getattr(source, "places", None)
    if places is None:
        raise InputError(
            f"{source.name(0)}: images of this kind get no index; convert them: fixres convert SOURCE DEST"
        )
    return places()


def _names(paths: Sequence[str], folder: Path) -> list[bytes]:
    """The files' names in the index: relative to the folder."""
    prefix = f"{folder}/"
    return [
        os.fsencode(path[len(prefix) :] if path.startswith(prefix) else os.path.relpath(path, folder)) for path in paths
    ]


def _stamp(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _rows(loaded: Loaded, names: list[bytes], images: ImagePlaces) -> tuple[np.ndarray, np.ndarray]:
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
