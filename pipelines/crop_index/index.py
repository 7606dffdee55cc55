"""The index of a source's images: what is known of each, and what this process adds to it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.crop_index.index_file import STAMP
from fixres.pipelines.crop_index.location import coarse_places, home_of, places_of, remedy
from fixres.pipelines.crop_index.records import FileStamp, digests, make_entries, make_entry, samples_of
from fixres.pipelines.crop_index.store import Found, Store
from fixres.pipelines.formats.samples import ImagePlaces
from fixres.pipelines.spec import InputError, Source

MIN_COARSE_SIDE = 96
"""Short side in pixels of the smallest coarse level, as in a RoC record."""


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
        stores: of checkpoints and of coarse levels.
    """

    def __init__(self, source: Source) -> None:
        """Reads what is known of the images, and merges the journals of processes that have ended.

        Args:
            source: an opened source of files, of images in files, or of rows of a table.

        Raises:
            InputError: the source is of a kind that has no index, or the index is damaged.
        """
        self._images, data = images_of(source), Path(source.path)
        if self._images.table:
            self._names, self._home = [b"", *map(os.fsencode, self._images.paths[1:])], Path()
        else:
            self._names = _names(self._images.paths, data if data.is_dir() else data.parent)
            self._home = home_of(data) if data.is_dir() else data.parent
        self.places = places_of(data, self._images.table)
        coarse = coarse_places(self.places)
        self.remedy = remedy(data, self.places, self._images.table)
        # Nothing tells whether a row of a table has changed, so this process compares it when it first reads it.
        self._compared = (self._images.file_of > 0) | (not self._images.table)
        self._main, self._coarse = (Store(self._images, self._names, one, self.remedy) for one in (self.places, coarse))
        self.stores = self._main, self._coarse

    def __len__(self) -> int:
        return len(self._images.item)

    @property
    def num_known(self) -> int:
        """Images that the index knows, whether they have checkpoints or not."""
        return int(self._main.find().is_known.sum())

    @property
    def entries(self) -> np.ndarray:
        """`ENTRY` (num_known,) of the known images, in their order."""
        found = self._main.find()
        return found.entries[found.is_known]

    @property
    def num_levels(self) -> int:
        """Images with a coarse level."""
        return int(_are_levels(self._main.find(), self._coarse.find()).sum())

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """int64 (n, 2): height and width of images, as far as the index has them; else zeros."""
        entries = self._main.find(indices).entries
        return np.column_stack([entries["height"], entries["width"]]).astype(np.int64)

    def kind(self, index: int) -> int:
        """The kind of an image (`checkpoints`); -1 if it is not known."""
        found = self._main.find(np.array([index]))
        return int(found.entries["kind"][0]) if found.is_known[0] else -1

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
        found = self._main.find()
        return np.flatnonzero(~found.is_known | (found.stamps != stamps))

    def lack_level(self, indices: np.ndarray | slice = slice(None)) -> np.ndarray:
        """bool (n,): which of some images are known, and have no coarse level although they are large enough."""
        main, coarse = self._main.find(indices), self._coarse.find(indices)
        side = np.minimum(main.entries["height"], main.entries["width"])  # 0 if the headers do not tell
        wanted = main.is_known & (main.entries["kind"] != checkpoints.DAMAGED)
        return wanted & ((side == 0) | ((side + 1) // 2 >= MIN_COARSE_SIDE)) & ~_are_levels(main, coarse)

    def stamps(self, indices: np.ndarray) -> np.ndarray:
        """What the files of some images look like now, `STAMP` (n,); zeros for a file that cannot be read."""
        files = self._images.file_of[indices].tolist()
        now = {file: _stamp(self._images.paths[file]) for file in set(files)}
        return np.array([now[file] for file in files], STAMP)

    def refresh(self) -> None:
        """Takes over what other processes have added since, unless everything is known."""
        if self.num_known < len(self):
            for store in self.stores:
                store.read()

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
        found = self._main.find(indices)
        entries, fits = found.entries.copy(), found.is_known & (found.entries["size"] == spans[:, 1])
        known, bodies = np.flatnonzero(fits), [b""] * len(indices)
        for slot, body in zip(known.tolist(), self._main.bodies(indices[known], found.of(known)), strict=True):
            bodies[slot] = body
        is_other = found.stamps != stamps  # touched or copied, or replaced
        changed = np.flatnonzero(fits & (is_other | ~self._compared[indices]))
        if len(changed):
            fits[changed] = digests(data, spans[changed]) == entries["digest"][changed]
        self._compared[indices] = True
        unknown = np.flatnonzero(~fits)
        if len(unknown):
            entries[unknown], scanned = self._scan(indices[unknown], data, spans[unknown])
            for slot, body in zip(unknown.tolist(), scanned, strict=True):
                bodies[slot] = body
        new = np.flatnonzero(~fits | is_other)
        if len(new):
            self._main.add(indices[new], stamps[new], entries[new], [bytes(bodies[slot]) for slot in new.tolist()])
            if len(same := new[fits[new]]):
                self._keep_levels(indices[same], stamps[same], found.of(same))
        return _joined(entries, bodies)

    def _keep_levels(self, indices: np.ndarray, stamps: np.ndarray, found: Found) -> None:
        """Adds the coarse levels of images again whose files have got other stamps, and else are as they were."""
        coarse = self._coarse.find(indices)
        rows = np.flatnonzero(_are_levels(found, coarse))
        kept = coarse.of(rows)
        bodies = [bytes(body) for body in self._coarse.bodies(indices[rows], kept)]
        self._coarse.add(indices[rows], stamps[rows], kept.entries, bodies)

    def have_level(self, indices: np.ndarray, stamps: np.ndarray) -> np.ndarray:
        """bool (n,): which of some images have a coarse level, and a file that looks as when it was made.

        Rows of a table that this process has not yet read have none.

        Args:
            indices: int64 (n,).
            stamps: `STAMP` (n,), what their files look like now.
        """
        main, coarse = self._main.find(indices), self._coarse.find(indices)
        return _are_levels(main, coarse) & (main.stamps == stamps) & self._compared[indices]

    def levels(self, indices: np.ndarray) -> tuple[list[bytes | memoryview], Checkpoints]:
        """The coarse levels of images that have one: their JPEG files and checkpoints.

        Raises:
            InputError: one is damaged.
        """
        found = self._coarse.find(indices)
        bodies, sizes = self._coarse.bodies(indices, found), found.entries["words_size"].tolist()
        return [body[size:] for body, size in zip(bodies, sizes, strict=True)], _joined(found.entries, bodies)

    def add_levels(self, indices: np.ndarray, stamps: np.ndarray, sizes: np.ndarray, jpegs: Sequence[bytes]) -> None:
        """Adds the coarse levels of known images.

        Args:
            indices: int64 (n,).
            stamps: `STAMP` (n,), what their files looked like before they were read.
            sizes: int64 (n, 2), height and width of the images, not of the levels.
            jpegs: baseline files of half the size, rounded up; b"" for an image that is too small.
        """
        entries = self._main.find(indices).entries.copy()
        no_size = entries["height"] == 0  # such images have no checkpoints
        entries["height"], entries["width"] = sizes[:, 0], sizes[:, 1]
        self._main.add(indices[no_size], stamps[no_size], entries[no_size], [b""] * int(no_size.sum()))
        made = [slot for slot, jpeg in enumerate(jpegs) if jpeg]
        bodies = []
        for slot in made:
            sample, words = checkpoints.scan(jpegs[slot])
            parts = words.tobytes(), jpegs[slot]
            entry = make_entry(int(entries["item"][slot]), np.frombuffer(jpegs[slot], np.uint8), sample, *parts)
            entry["size"], entry["digest"] = entries["size"][slot], entries["digest"][slot]
            entries[slot] = entry
            bodies.append(b"".join(parts))
        self._coarse.add(indices[made], stamps[made], entries[made], bodies)

    def _scan(self, indices: np.ndarray, data: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, list[bytes]]:
        """Entries and bodies of images that are scanned."""
        samples, words = checkpoints.scan_batch(data, spans)
        # Of a damaged file, the room for its words is left without meaning.
        counts = np.zeros(len(samples), np.int64)
        checkpoints.count_words(samples, counts)
        sizes = counts.tolist()
        firsts = samples[:, checkpoints.FIRST].tolist()
        bodies = [words[first : first + size].tobytes() for first, size in zip(firsts, sizes, strict=True)]
        samples[:, checkpoints.FIRST] = np.cumsum([0, *sizes[:-1]])
        joined = np.frombuffer(b"".join(bodies), np.uint8)
        return make_entries(self._images.item[indices], data, spans, samples, joined), bodies

    def finish(self) -> None:
        """Ends this process's journals, merges them into the index, and removes entries of files that are gone.

        Raises:
            OSError: the disk is full or fails.
        """
        names, home = set(self._names), self._home
        for store in self.stores:
            store.finish(lambda name: name in names or os.path.exists(home / os.fsdecode(name)))

    def close(self) -> None:
        """Ends this process's journals, and merges them into the index unless another process is merging."""
        for store in self.stores:
            store.close()


def _are_levels(main: Found, coarse: Found) -> np.ndarray:
    """bool (n,): whether what is known are two levels of the same image, and of its file in the same state."""
    fit = main.is_known & coarse.is_known & (main.stamps == coarse.stamps)
    for name in ("size", "digest"):
        fit &= main.entries[name] == coarse.entries[name]
    for name in ("height", "width"):
        fit &= (main.entries[name] + 1) // 2 == coarse.entries[name]
    return fit


def _joined(entries: np.ndarray, bodies: Sequence[bytes | memoryview]) -> Checkpoints:
    samples, sizes = samples_of(entries), entries["words_size"].astype(np.int64)
    samples[:, checkpoints.FIRST] = (np.cumsum(sizes) - sizes) // 2
    parts = [body[:size] for body, size in zip(bodies, sizes.tolist(), strict=True)]
    return Checkpoints(samples, np.frombuffer(b"".join(parts), np.uint16))


def images_of(source: Source) -> ImagePlaces:
    """Where the images of a source lie.

    Raises:
        InputError: they are of a kind that has no index.
    """
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


def _stamp(path: str) -> FileStamp:
    try:
        found = os.stat(path)
    except OSError:
        return FileStamp(0, 0, 0)
    return FileStamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)
