"""Writes .beton files that ffcv reads, without using ffcv (see `fixres.pipelines.formats.beton_layout`)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fixres.pipelines.formats import beton_layout as layout
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.samples import EncodedSample, Entry, verify
from fixres.pipelines.runtime.atomic_files import atomic_file, open_own
from fixres.pipelines.spec import InputError


def write_beton(
    path: Path,
    samples: Iterable[EncodedSample],
    max_samples: int,
    classes: Sequence[str] = (),
    extra_fields: Sequence[str] = (),
    overwrite: bool = False,
    check: Callable[[BetonReader], None] | None = None,
) -> int:
    """Writes a whole file atomically, after reading it back.

    Args:
        path: the file's final name.
        samples: consumed one at a time; if they raise an exception, no file is left.
        max_samples: at least the number of samples; space for their metadata is reserved before the images.
        classes: class names in label order.
        extra_fields: names of BytesField columns; each sample's `extra` holds them in this order.
        overwrite: replace an existing file.
        check: called with the finished file before it gets its name; raises InputError if it is wrong.

    Returns:
        Number of samples written.
    """
    with atomic_file(path, overwrite) as partial:
        with BetonWriter(partial, max_samples, classes, extra_fields) as writer:
            for sample in samples:
                writer.write(sample)
            finish_beton(writer, check)
    return writer.num_samples


def finish_beton(writer: BetonWriter, check: Callable[[BetonReader], None] | None = None) -> None:
    """Completes a file and reads it back; raises if it differs from what was written or `check` raises."""
    writer.finish()
    reader = BetonReader(writer.path)
    verify(reader, writer.labels, writer.sizes)
    if check is not None:
        check(reader)


class BetonWriter:
    """Streams samples to a file: image data page by page, tables and header last.

    The file has no valid header before `finish`. The writer writes to `path` itself; `write_beton` adds the temporary
    name and the verification.

    Attributes:
        num_samples: samples written so far, those of `keep` included.
    """

    def __init__(
        self,
        path: Path,
        max_samples: int,
        classes: Sequence[str] = (),
        extra_fields: Sequence[str] = (),
        page_size: int = layout.DEFAULT_PAGE_SIZE,
        about: Mapping[str, object] | None = None,
        keep: Sequence[Entry] = (),
    ) -> None:
        """Opens the file.

        Args:
            path, max_samples, classes, extra_fields: as in `write_beton`.
            page_size: bytes, a power of two.
            about: further entries of the file's JSON object.
            keep: samples that an earlier process has written to `path`, which stay there.
        """
        names = ["image", "label", *extra_fields]
        _check_names(names)
        if not layout.MIN_PAGE_SIZE <= page_size <= layout.MAX_PAGE_SIZE or page_size & (page_size - 1):
            raise InputError(f"page_size={page_size} must be a power of two from 2 MiB to 2 GiB")
        self.path, self.num_samples = path, 0
        self._page_size = page_size
        types = [layout.TYPE_IMAGE, layout.TYPE_INT] + [layout.TYPE_BYTES] * len(extra_fields)
        self._descriptors = _descriptors(names, types)
        self._metadata = np.zeros(max_samples, layout.metadata_dtype(types))
        self._table = np.zeros((max_samples, 1 + len(extra_fields)), layout.ALLOCATION)
        # Without class names the file equals that of ffcv's writer byte for byte.
        info = ({"classes": list(classes)} if classes else {}) | dict(about or {})
        self._info = json.dumps(info).encode() if info else b""
        self._info_start = layout.metadata_start(len(names)) + self._metadata.nbytes
        self._position = layout.align(self._info_start + len(self._info), page_size)
        self._file = open(path, "r+b" if path.exists() else "w+b", opener=open_own)
        self._take_over(keep)

    def __enter__(self) -> BetonWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def labels(self) -> np.ndarray:
        """int64 (N,): labels written so far."""
        return self._metadata["f1"][: self.num_samples]

    @property
    def sizes(self) -> np.ndarray:
        """int64 (N, 2): heights and widths written so far."""
        images = self._metadata["f0"][: self.num_samples]
        return np.column_stack([images["height"], images["width"]]).astype(np.int64)

    def write(self, sample: EncodedSample) -> None:
        """Appends one sample; its index in the file is the number of samples before it."""
        parts = [sample.image, *sample.extra]
        start = self._account(sample.index, sample.label, sample.height, sample.width, [len(part) for part in parts])
        self._file.seek(start)
        self._file.writelines(parts)

    def _take_over(self, keep: Sequence[Entry]) -> None:
        """Adds an earlier process's samples to the tables, and truncates the file after them."""
        for entry in keep:
            if not entry.is_bad:
                self._account(entry.index, entry.label, entry.height, entry.width, entry.sizes)
        if not self.num_samples:
            self._file.truncate(0)
        elif os.fstat(self._file.fileno()).st_size < self._position:
            raise InputError(
                f"{self._file.name} is shorter than its journal says; remove it and run the same command again"
            )
        self._file.truncate(self._position)

    def sync(self) -> None:
        """Returns when all written samples are safe on disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def _account(self, index: int, label: int, height: int, width: int, sizes: Sequence[int]) -> int:
        """Adds a sample to the tables; returns the position of its bytes."""
        number = self.num_samples
        if number == len(self._metadata):
            raise InputError(f"sample {index} is more than max_samples={number}; reserve more")
        if len(sizes) != self._table.shape[1]:
            raise InputError(f"sample {index} has {len(sizes)} byte strings for {self._table.shape[1]} fields")
        if not all(sizes):
            # ffcv finds sizes by position, so an empty string would get the size of its neighbor.
            raise InputError(f"sample {index} has an empty field; .beton files cannot hold one")
        start = self._place(index, sum(sizes))
        pointers = (start + np.cumsum([0, *sizes[:-1]])).tolist()
        row = self._metadata[number]
        row["f0"] = (layout.MODE_JPG, width, height, pointers[0])
        row["f1"] = label
        for k, pointer in enumerate(pointers[1:]):
            row[f"f{2 + k}"] = (pointer, sizes[1 + k])
        self._table[number] = [(number, pointer, size) for pointer, size in zip(pointers, sizes, strict=True)]
        self.num_samples = number + 1
        return start

    def finish(self) -> None:
        """Writes tables and header; the file is complete afterwards."""
        if self.num_samples == 0:
            raise InputError("no samples to write; a .beton file cannot be empty")
        metadata, table = self._metadata[: self.num_samples], self._table[: self.num_samples]
        # ffcv reads whole pages, so the last one must be complete; its end is a hole that takes no disk space.
        end = layout.align(self._position, self._page_size)
        header = np.array(
            [(layout.VERSION, len(self._descriptors), self._page_size, self.num_samples, end)], layout.HEADER
        )
        if self._info:
            pointer = np.zeros(1, layout.INFO_POINTER)
            crc = layout.checksum(header[0], self._descriptors, metadata, table, self._info)
            pointer[0] = (layout.INFO_MAGIC, self._info_start, len(self._info), crc)
            self._descriptors["arguments"][0, : pointer.nbytes] = pointer.view("u1")
        self._put(end, table)
        self._put(0, header, self._descriptors, metadata)
        self._put(self._info_start, self._info)
        self._file.flush()

    def _place(self, index: int, total: int) -> int:
        """The position for `total` bytes: after the last sample, or in the next page if this one is full."""
        if total > self._page_size:
            raise InputError(f"sample {index} takes {total} bytes, a page {self._page_size}; choose a smaller max_side")
        start, page_end = self._position, layout.align(self._position, self._page_size)
        if start + total > page_end:
            start = page_end
        self._position = start + total
        return start

    def _put(self, position: int, *blocks: np.ndarray | bytes) -> None:
        self._file.seek(position)
        for block in blocks:
            self._file.write(block)


def _check_names(names: list[str]) -> None:
    valid = all(name.isascii() and name.isprintable() and 0 < len(name) <= 16 for name in names)
    if not valid or len(set(names)) != len(names) or len(names) > layout.MAX_FIELDS:
        raise InputError(f"field names {names} must differ and have 1 to 16 ASCII characters")


def _descriptors(names: list[str], types: list[int]) -> np.ndarray:
    descriptors = np.zeros(len(names), layout.DESCRIPTOR)
    for descriptor, name, type_id in zip(descriptors, names, types, strict=True):
        descriptor["type_id"] = type_id
        descriptor["name"][: len(name)] = np.frombuffer(name.encode("ascii"), "u1")
    return descriptors
