"""Records: what an index knows of one image, as the journals and the index file store it.

An entry is a row of fixed size: which image, its size in bytes, a digest of them, its geometry, and either where its
checkpoints lie or why it is decoded whole. The body has the words of `checkpoints`. In the index of coarse levels,
geometry and words are those of the level, and its JPEG file follows the words; size and digest are those of the image.
Numbers are little endian.

A journal's record is the entry, the name of the image's file, the body, and a digest of all of that. A record that was
not written completely has another digest, so it and everything behind it is ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.roc.decoder.vectors import load_big_endian
from fixres.pipelines.runtime.numba_cache import kernel

# Fields of an entry that are columns of a sample of `checkpoints`.
_COLUMNS = {
    "kind": checkpoints.KIND,
    "num_components": checkpoints.NUM_COMPONENTS,
    "block_rows": checkpoints.BLOCK_ROWS,
    "block_columns": checkpoints.BLOCK_COLUMNS,
    "height": checkpoints.HEIGHT,
    "width": checkpoints.WIDTH,
    "header_size": checkpoints.HEADER_SIZE,
    "data_size": checkpoints.DATA_SIZE,
    "restart_interval": checkpoints.RESTART_INTERVAL,
}
ENTRY = np.dtype(
    [
        ("file", "<u4"),  # number of the file in the index; 0 in a journal
        ("kind", "u1"),
        ("num_components", "u1"),
        ("block_rows", "u1"),
        ("block_columns", "u1"),
        ("item", "<i8"),  # which image of the file: its position or row; 0 if the file is the image
        ("size", "<i8"),  # bytes of the image
        ("digest", "<u8"),  # of these bytes
        ("height", "<u4"),
        ("width", "<u4"),
        ("header_size", "<u4"),
        ("data_size", "<u4"),
        ("restart_interval", "<u4"),
        ("words_size", "<u4"),  # bytes of the body that hold the words; the others are the coarse level
        ("body_start", "<i8"),  # in the index file; 0 in a journal
        ("body_size", "<i8"),
        ("body_digest", "<u8"),
    ]
)
_MAGIC = 0x53786469  # "idxS"
HEAD = struct.Struct("<IIIIqqq")  # magic, bytes of the record, of the entry, of the name; `FileStamp`
DIGEST_BYTES = 8
_PRIME, _START = np.uint64(0x00000100000001B3), np.uint64(0xCBF29CE484222325)  # of FNV-1a, 64 bits


class FileStamp(NamedTuple):
    """What a file looked like when its images were indexed."""

    size: int  # bytes
    mtime_ns: int  # of the content; programs that copy or unpack files set it
    ctime_ns: int  # of the content, the name, the mode or the number of links; no program sets it


class Record(NamedTuple):
    """What an index knows of one image.

    Attributes:
        name: of the file, relative to the folder of the data, with "/"; bytes, because names need not be text.
        stamp: of the file.
        entry: `ENTRY`, one row.
        body: words and coarse level; may be empty.
    """

    name: bytes
    stamp: FileStamp
    entry: np.void
    body: bytes


def make_entry(item: int, image: np.ndarray, sample: np.ndarray, words: bytes, coarse: bytes = b"") -> np.void:
    """The entry of an image, uint8 bytes, with what `checkpoints.scan` found in it."""
    body = np.frombuffer(words + coarse, np.uint8)
    entries = make_entries(np.array([item]), image, np.array([[0, image.size]]), sample[None], body)
    entries["words_size"] = len(words)
    return entries[0]


def make_entries(
    items: np.ndarray, data: np.ndarray, spans: np.ndarray, samples: np.ndarray, bodies: np.ndarray
) -> np.ndarray:
    """The entries of images, `ENTRY` (n,), with what `checkpoints.scan_batch` found in them.

    Args:
        items: int64 (n,), which images of their files they are.
        data, spans: the images' bytes, as for `checkpoints.scan_batch`.
        samples: int64 (n, 10).
        bodies: uint8, the bodies of all, one behind the other; of equal size as the words, unless there is one image.
    """
    entries = np.zeros(len(items), ENTRY)
    for name, column in _COLUMNS.items():
        entries[name] = samples[:, column]
    ends = np.append(2 * samples[1:, checkpoints.FIRST], bodies.size)
    starts = np.append(0, ends[:-1])
    entries["item"], entries["size"], entries["digest"] = items, spans[:, 1], digests(data, spans)
    entries["words_size"] = entries["body_size"] = ends - starts
    entries["body_digest"] = digests(bodies, np.column_stack([starts, ends - starts]))
    return entries


def samples_of(entries: np.ndarray) -> np.ndarray:
    """The samples of `checkpoints`, int64 (n, 10), of `ENTRY` rows; their FIRST is 0."""
    samples = np.zeros((len(entries), checkpoints.NUM_SAMPLE_COLUMNS), np.int64)
    for name, column in _COLUMNS.items():
        samples[:, column] = entries[name]
    return samples


def pack(records: Sequence[Record]) -> list[bytes]:
    """Records as a journal stores them."""
    parts = []
    for name, stamp, entry, body in records:
        size = HEAD.size + ENTRY.itemsize + len(name) + len(body)
        head = HEAD.pack(_MAGIC, size + DIGEST_BYTES, ENTRY.itemsize, len(name), *stamp)
        parts.append(b"".join((head, entry.tobytes(), name, body)))
    sizes = np.array([len(part) for part in parts], np.int64)
    data = np.frombuffer(b"".join(parts), np.uint8)
    found = digests(data, np.column_stack([np.cumsum(sizes) - sizes, sizes])).astype("<u8").tobytes()
    return [part + found[k * DIGEST_BYTES : (k + 1) * DIGEST_BYTES] for k, part in enumerate(parts)]


class Unpacked(NamedTuple):
    """The records in a journal without their bodies.

    Attributes:
        names: of the files.
        stamps: of them.
        entries: `ENTRY` (n,).
        body_starts, body_sizes: int64 (n,), where the bodies lie in the journal.
    """

    names: list[bytes]
    stamps: list[FileStamp]
    entries: np.ndarray
    body_starts: np.ndarray
    body_sizes: np.ndarray


def unpack(data: memoryview, starts: Sequence[int]) -> Unpacked:
    """The records at positions that `walk` found."""
    heads = [HEAD.unpack_from(data, start) for start in starts]
    entries = b"".join([data[start + HEAD.size : start + HEAD.size + ENTRY.itemsize] for start in starts])
    sizes, name_sizes = (np.array([head[k] for head in heads], np.int64) for k in (1, 3))
    name_starts = np.array(starts, np.int64) + HEAD.size + ENTRY.itemsize
    body_starts = name_starts + name_sizes
    names = [bytes(data[start:end]) for start, end in zip(name_starts.tolist(), body_starts.tolist(), strict=True)]
    body_sizes = np.array(starts, np.int64) + sizes - DIGEST_BYTES - body_starts
    stamps = [FileStamp(*head[4:]) for head in heads]
    return Unpacked(names, stamps, np.frombuffer(entries, ENTRY), body_starts, body_sizes)


def walk(data: np.ndarray, start: int) -> np.ndarray:
    """Positions, int64, of the complete records in a journal's bytes from `start` on."""
    found = np.empty(data.size // (HEAD.size + ENTRY.itemsize + DIGEST_BYTES) + 1, np.int64)
    return found[: _walk(data, start, HEAD.size, ENTRY.itemsize, found)].copy()


@kernel
def digest(data: np.ndarray) -> np.uint64:
    """FNV-1a of uint8 data by words of 8 bytes. A change within one word always changes it."""
    value, num_words = _START ^ np.uint64(data.size), data.size // 8
    for k in range(num_words):
        value = (value ^ load_big_endian(data.ctypes.data + 8 * k)) * _PRIME
    for k in range(8 * num_words, data.size):
        value = (value ^ np.uint64(data[k])) * _PRIME
    return value ^ (value >> np.uint64(32))


@kernel
def digests(data: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """uint64 (n,): the digests of the parts of uint8 data at int64 (n, 2) starts and sizes."""
    found = np.empty(spans.shape[0], np.uint64)
    for k in range(spans.shape[0]):
        found[k] = digest(data[spans[k, 0] : spans[k, 0] + spans[k, 1]])
    return found


@kernel
def _walk(data: np.ndarray, start: int, head_size: int, entry_size: int, found: np.ndarray) -> int:
    """Fills `found`; returns how many records there are before the first that is incomplete or damaged."""
    at, num = start, 0
    while at + head_size <= data.size:
        size, name_size = _word(data, at + 4), _word(data, at + 12)
        if _word(data, at) != _MAGIC or _word(data, at + 8) != entry_size:
            break
        if size - head_size - entry_size - DIGEST_BYTES < name_size or size > data.size - at:
            break
        end = at + size - DIGEST_BYTES
        stored = np.uint64(_word(data, end)) | np.uint64(_word(data, end + 4)) << np.uint64(32)
        if stored != digest(data[at:end]):
            break
        found[num] = at
        at, num = at + size, num + 1
    return num


@kernel
def _word(data: np.ndarray, at: int) -> int:
    return (
        np.int64(data[at]) | np.int64(data[at + 1]) << 8 | np.int64(data[at + 2]) << 16 | np.int64(data[at + 3]) << 24
    )
