"""The index file: all records of a data set, sorted, in a form that is mapped into memory.

| Bytes | Content |
|---|---|
| 64 | `HEADER` |
| to `tables_start` | the bodies of the entries |
| 24 for each file | size, modification time and change time (ns) of the files, in the order of their names |
| 8 for each file | where its name ends in the names |
| 88 for each image | `records.ENTRY`, sorted by file and item |
| `names_size` | the names of the files, relative to the folder of the index, without separators |

Equal records give equal bytes, so an index that several processes made is that of one. Index files are untrusted:
opening one checks all tables, and `records.digest` of each body is compared when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.crop_index.records import ENTRY, FileStamp, digest, samples_of
from fixres.pipelines.formats.mmap_files import map_file
from fixres.pipelines.runtime.atomic_files import open_own
from fixres.pipelines.spec import InputError

MAGIC, VERSION = b"FIXRESIX", 1
HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "<u4"),
        ("entry_size", "<u4"),
        ("num_files", "<u8"),
        ("num_entries", "<u8"),
        ("tables_start", "<u8"),
        ("names_size", "<u8"),
        ("tables_digest", "<u8"),  # of everything from `tables_start` on
        ("header_digest", "<u8"),  # of the header before it
    ]
)
STAMP = np.dtype([(name, "<i8") for name in FileStamp._fields])
_NAME_END = np.dtype("<u8")
_LIMITS = {"height": 65535, "width": 65535, "block_rows": 4, "block_columns": 4}


class Tables(NamedTuple):
    """The tables of an index.

    Attributes:
        names: of the files, sorted.
        stamps: `STAMP`, a row for each file.
        entries: `ENTRY`, sorted by file and item.
    """

    names: list[bytes]
    stamps: np.ndarray
    entries: np.ndarray


def write_index(path: Path, tables: Tables, bodies: Iterable[bytes | memoryview]) -> None:
    """Writes an index to a new or temporary file.

    Args:
        path: the file.
        tables: see there. Where the entries' bodies start is filled in.
        bodies: of each entry, in the same order.
    """
    entries, at = tables.entries.copy(), HEADER.itemsize
    entries["body_start"] = at + np.cumsum(entries["body_size"]) - entries["body_size"]
    ends = np.cumsum([len(name) for name in tables.names], dtype=_NAME_END)
    names = b"".join(tables.names)
    packed = b"".join((tables.stamps.tobytes(), ends.tobytes(), entries.tobytes(), names))
    with open(path, "wb", opener=open_own) as file:
        file.write(bytes(HEADER.itemsize))
        for body in bodies:
            file.write(body)
            at += len(body)
        file.write(packed)
        header = np.zeros(1, HEADER)
        header["magic"], header["version"], header["entry_size"] = MAGIC, VERSION, ENTRY.itemsize
        header["num_files"], header["num_entries"] = len(tables.names), len(entries)
        header["tables_start"], header["names_size"] = at, len(names)
        header["tables_digest"] = digest(np.frombuffer(packed, np.uint8))
        header["header_digest"] = _header_digest(header)
        file.seek(0)
        file.write(header.tobytes())


def _header_digest(header: np.ndarray) -> np.uint64:
    return digest(header.view(np.uint8)[: HEADER.fields["header_digest"][1]])


class IndexFile:
    """An index file, memory-mapped.

    Attributes:
        path: the file.
        memory: its bytes.
        tables: its tables, which were checked.
    """

    def __init__(self, path: Path, remedy: str = "fixres index FOLDER --overwrite") -> None:
        """Opens an index.

        Args:
            path: the file.
            remedy: the command that makes it again, for errors.

        Raises:
            InputError: it is damaged, or of a version that this program does not know.
            FileNotFoundError: there is none.
        """
        self.path, self._remedy = path, remedy
        try:
            self.memory = map_file(path)
        except ValueError:
            self._fail("it is empty")
        self.tables = self._read_tables()

    def _read_tables(self) -> Tables:
        if len(self.memory) < HEADER.itemsize:
            self._fail("it ends within its header")
        header = np.frombuffer(self.memory, HEADER, 1)
        if header["magic"][0] != MAGIC:
            self._fail("it does not begin like an index")
        if header["version"][0] != VERSION or header["entry_size"][0] != ENTRY.itemsize:
            raise InputError(
                f"{self.path} is an index of version {header['version'][0]}, which this program does not know; make it"
                f" again: {self._remedy}"
            )
        if header["header_digest"][0] != _header_digest(header):
            self._fail("its header does not match its checksum")
        num_files, num_entries, start, names_size = (
            int(header[name][0]) for name in ("num_files", "num_entries", "tables_start", "names_size")
        )
        sizes = [num_files * STAMP.itemsize, num_files * _NAME_END.itemsize, num_entries * ENTRY.itemsize, names_size]
        if start < HEADER.itemsize or start + sum(sizes) != len(self.memory):
            self._fail("its tables do not have the size that its header says")
        if digest(np.frombuffer(self.memory, np.uint8)[start:]) != header["tables_digest"][0]:
            self._fail("its tables do not match their checksum")
        at = start + np.cumsum([0, *sizes])
        stamps = np.frombuffer(self.memory, STAMP, num_files, at[0])
        ends = np.frombuffer(self.memory, _NAME_END, num_files, at[1])
        entries = np.frombuffer(self.memory, ENTRY, num_entries, at[2])
        tables = Tables(self._names(bytes(self.memory[at[3] :]), ends), stamps, entries)
        self._check(tables, start)
        return tables

    def _names(self, names: bytes, ends: np.ndarray) -> list[bytes]:
        stops = ends.tolist()
        if sorted(stops) != stops or (stops[-1] if stops else 0) != len(names):
            self._fail("the names of its files are not where they should be")
        return [names[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]

    def _check(self, tables: Tables, tables_start: int) -> None:
        entries, files = tables.entries, tables.entries["file"].astype(np.int64)
        if any(one >= other for one, other in zip(tables.names, tables.names[1:], strict=False)):
            self._fail("its files are not sorted")
        self._each(files < len(tables.names), "belongs to no file")
        self._each(are_possible(entries), "has a geometry that no image has")
        starts, sizes = entries["body_start"], entries["body_size"]
        inside = (starts >= HEADER.itemsize) & (sizes >= 0) & (starts <= tables_start)
        self._each(inside & (sizes <= tables_start - np.where(inside, starts, 0)), "lies outside of the file")
        steps, items = np.diff(files), entries["item"]
        self._each((steps > 0) | ((steps == 0) & (items[1:] > items[:-1])), "is not in order")

    def _each(self, good: np.ndarray, what: str) -> None:
        if not good.all():
            self._fail(f"entry {np.flatnonzero(~good)[0]} {what}")

    def _fail(self, what: str) -> NoReturn:
        raise InputError(f"{self.path}: {what}; the index is damaged, make it again: {self._remedy}")


def are_possible(entries: np.ndarray) -> np.ndarray:
    """bool (n,): whether the entries' geometry is one that `checkpoints` can have, with as many words as it needs."""
    is_indexed, components = entries["kind"] == checkpoints.INDEXED, entries["num_components"]
    good = (entries["kind"] <= max(checkpoints.REASONS)) & (entries["size"] >= 0)
    for name, high in _LIMITS.items():
        good &= ~is_indexed | ((entries[name] >= 1) & (entries[name] <= high))
    good &= ~is_indexed | (components == 1) | (components == 3)
    stop = entries["header_size"].astype(np.int64) + entries["data_size"]
    coarse_size = entries["body_size"] - entries["words_size"]  # its headers and data lie in the body
    good &= ~is_indexed | (stop <= np.where(coarse_size > 0, coarse_size, entries["size"]))
    words = np.zeros(len(entries), np.int64)
    samples = samples_of(entries)
    samples[~good, checkpoints.KIND] = checkpoints.DAMAGED
    checkpoints.count_words(samples, words)
    return good & (entries["words_size"] == 2 * words) & (entries["words_size"] <= entries["body_size"])
