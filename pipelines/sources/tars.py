"""Images in webdataset tar shards, read at random through their index files."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.spec import BadSampleError, InputError

INDEX_VERSION = "v1.2"
TABLE_NAME = "classes.json"
_IMAGE_ENDINGS = ("jpg", "jpeg", "png", "ppm", "bmp", "webp", "tif", "tiff")
_MAX_CLASSES = 1 << 20


class _Member(NamedTuple):
    ending: str
    offset: int
    size: int


class TarSource:
    """A folder of webdataset shards as a `pipelines.spec.Source`.

    Samples are ordered by number where all keys are different numbers (as `pipelines.webdataset` writes them), else
    by shard and place. Shards are opened for each read: a descriptor each would exceed the usual limit of 1024.

    Attributes:
        path: the folder.
        shards: paths of the tar files, sorted.
        classes: from `classes.json`; "0", "1", ... if that is missing.
        labels: int64 (N,), from the `cls` members.
        keys: names of the samples.
        about: all that `classes.json` tells.
        numbers: int64 (N,), increasing: the numbers that the keys spell, or 0 to N - 1 if they spell none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.shards = sorted(self.path.glob("*.tar"))
        if not self.shards:
            raise InputError(f"{self.path} holds no .tar shards")
        rows = [row for number, shard in enumerate(self.shards) for row in _shard_rows(number, shard)]
        if not rows:
            raise InputError(f"{self.path}: its {len(self.shards)} shards hold no samples")
        self.keys, order, self.numbers = _in_order([key for key, *_ in rows])
        spans = np.array([span for _, *span in rows], np.int64).reshape(len(rows), 4)
        self._shard, self._offset, self._size = spans[order, :3].T
        self.labels = spans[order, 3]
        self.classes = self._read_classes()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The image member's bytes."""
        try:
            with open(self.shards[self._shard[index]], "rb", buffering=0) as file:
                data = os.pread(file.fileno(), int(self._size[index]), int(self._offset[index]))
        except OSError as error:
            raise BadSampleError(f"{self.name(index)}: cannot be read ({error.strerror})", int(index)) from None
        if len(data) < self._size[index]:
            raise BadSampleError(f"{self.name(index)}: the shard has become shorter", int(index))
        return data

    def name(self, index: int) -> str:
        """The shard's path and the sample's key."""
        return f"{self.shards[self._shard[index]]}: {self.keys[index]}"

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """int64: indices in this source of samples whose keys spell `numbers` (they differ where samples were left
        out of a conversion)."""
        return np.searchsorted(self.numbers, numbers)

    def stored_order(self) -> np.ndarray:
        """int64 (N,): indices in the order in which the samples lie in the shards."""
        return np.lexsort((self._offset, self._shard))

    def _read_classes(self) -> tuple[str, ...]:
        table = self.path / TABLE_NAME
        top = int(self.labels.max())
        self.about: dict[str, object] = {}
        if not table.exists():
            return tuple(str(k) for k in range(top + 1))
        try:
            content = json.loads(table.read_text())
            self.about = dict(content)
            classes, num_samples = tuple(content["classes"]), int(content.get("num_samples", len(self)))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f'{table} is not of the form {{"classes": [names]}}; write it again') from None
        if not all(isinstance(name, str) for name in classes) or top >= len(classes):
            raise InputError(f"{table} names {len(classes)} classes, but a sample has the label {top}")
        if num_samples != len(self):
            raise InputError(
                f"{self.path} holds {len(self)} samples, but {TABLE_NAME} counts {num_samples}; copy the missing shards"
            )
        return classes


def _in_order(keys: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys in the order of the source, the permutation that led there, and the numbers they spell."""
    if all(re.fullmatch("[0-9]{1,18}", key) for key in keys):
        numbers = np.array(keys).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        if (np.diff(numbers[order]) > 0).all():
            return [keys[i] for i in order], order, numbers[order]
    return keys, np.arange(len(keys)), np.arange(len(keys), dtype=np.int64)


def _shard_rows(number: int, shard: Path) -> Iterator[tuple[str, int, int, int, int]]:
    """For each sample of a shard: key, shard number, image offset, image size, label."""
    size = shard.stat().st_size
    with open(shard, "rb", buffering=0) as file:
        for key, members in _samples(shard):
            name = f"{shard}: {key}"
            if any(member.offset < 0 or not 0 <= member.size <= size - member.offset for member in members):
                raise InputError(f"{name}: lies outside of the shard; remove {shard.with_suffix('.idx').name}")
            image = next((member for member in members if member.ending in _IMAGE_ENDINGS), None)
            label = next((member for member in members if member.ending == "cls"), None)
            if image is None or label is None:
                raise InputError(f"{name}: needs an image ({', '.join(_IMAGE_ENDINGS)}) and a .cls member")
            yield key, number, image.offset, image.size, _label(os.pread(file.fileno(), 32, label.offset), label, name)


def _label(start: bytes, member: _Member, name: str) -> int:
    text = start[: member.size].strip()
    if not re.fullmatch(rb"[0-9]{1,9}", text) or int(text) >= _MAX_CLASSES:
        raise InputError(f"{name}: its .cls member holds {text[:20]!r}, not a class number")
    return int(text)


def _samples(shard: Path) -> Iterable[tuple[str, list[_Member]]]:
    index = shard.with_suffix(".idx")
    return _parse_index(index) if index.exists() else _scan(shard)


def _parse_index(index: Path) -> Iterator[tuple[str, list[_Member]]]:
    """Samples from a `wds2idx` file: after a line with version and count, `ending offset size name ...` for each."""
    lines = index.read_text(errors="surrogateescape").splitlines()
    head = lines[0].split() if lines else []
    if len(head) != 2 or head[0] != INDEX_VERSION or head[1] != str(len(lines) - 1):
        raise InputError(f"{index}: not a complete index of version {INDEX_VERSION}; remove it or run wds2idx again")
    for line in lines[1:]:
        words = line.split(" ")
        try:
            members = [_Member(words[k].lower(), int(words[k + 1]), int(words[k + 2])) for k in range(0, len(words), 4)]
            yield _split(words[3])[0], members
        except (IndexError, ValueError):
            raise InputError(f"{index}: damaged line {line[:60]!r}; remove it or run wds2idx again") from None


def _scan(shard: Path) -> Iterator[tuple[str, list[_Member]]]:
    """The same from the tar headers, for shards without an index."""
    last, members = None, []
    try:
        with tarfile.open(shard, "r:") as tar:
            for member in filter(tarfile.TarInfo.isreg, tar):
                key, ending = _split(member.name)
                if key.endswith("/") or not key:  # hidden files, as macOS adds them; wds2idx leaves them out, too
                    continue
                if last is not None and key != last:
                    yield last, members
                    members = []
                last = key
                members.append(_Member(ending.lower(), member.offset_data, member.size))
    except tarfile.TarError as error:
        raise InputError(f"{shard}: no readable tar file ({error}); compressed shards must be unpacked") from None
    if last is not None:
        yield last, members


def _split(name: str) -> tuple[str, str]:
    """Key and ending; the ending starts at the first dot of the last path component, as webdataset has it."""
    folder, _, base = name.rpartition("/")
    key, _, ending = base.partition(".")
    return f"{folder}/{key}" if folder else key, ending
