"""Images in webdataset tar shards, read at random through their index files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.pipelines.formats.samples import ImagePlaces
from fixres.pipelines.formats.tar_index import Span, read_member, walk
from fixres.pipelines.formats.webdataset_labels import MAX_LABEL_BYTES, NO_NUMBER, Label, parse_cls, parse_json, resolve
from fixres.pipelines.imagenet_classes import human_names
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

INDEX_VERSION = "v1.2"
TABLE_NAME = "classes.json"
_IMAGE_ENDINGS = ("jpg", "jpeg", "png", "ppm", "bmp", "webp", "tif", "tiff")
_LABEL_ENDINGS = {"cls": parse_cls, "json": parse_json}  # the first that exists is used


class _Member(NamedTuple):
    ending: str
    offset: int
    size: int


class TarSource:
    """A folder of webdataset shards as a `fixres.pipelines.spec.Source`.

    If all keys are different numbers, as our writer's are, samples are ordered by number, else by shard and position.
    Shards are opened for each read, because a descriptor for each could exceed the usual limit of 1024.

    Attributes:
        path: the folder.
        shards: paths of the tar files, sorted.
        classes: from `classes.json`; if it is missing, from the synsets in the `json` members; else the numbers "0",
            "1", ..., or ImageNet's synsets if there are exactly 1000.
        labels: int64 (N,), from the `cls` members, or from the `json` members if there are no `cls` members.
        keys: names of the samples.
        unnamed: whether the classes are numbers, because nothing names them.
        about: the content of `classes.json`.
        numbers: int64 (N,), increasing: the keys as numbers, or 0 to N - 1 if they are not numbers.
    """

    def __init__(self, path: str | Path, shards: Sequence[Path] | None = None) -> None:
        """Indexes the shards of a folder; only these `shards` if they are given."""
        self.path = Path(path)
        self.shards = sorted(filter(Path.is_file, self.path.glob("*.tar")) if shards is None else shards)
        if not self.shards:
            raise InputError(f"{self.path} holds no .tar shards")
        rows = [row for number, shard in enumerate(self.shards) for row in _shard_rows(number, shard)]
        if not rows:
            raise InputError(f"{self.path}: its {len(self.shards)} shards hold no samples")
        self.keys, order, self.numbers = _in_order([key for key, *_ in rows])
        spans = np.array([span for _, *span, _ in rows], np.int64).reshape(len(rows), 3)
        self._shard, self._offset, self._size = spans[order].T
        self.about: dict[str, object] = {}
        self._take_classes([rows[i][-1] for i in order.tolist()])

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Readable names of the classes; looked up on first use, because that imports timm."""
        return human_names(self.classes)

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The image member's bytes."""
        shard, offset, size = (int(column[index]) for column in (self._shard, self._offset, self._size))
        return read_member(self.shards[shard], offset, size, self.name(index), int(index))

    def name(self, index: int) -> str:
        """The shard's path and the sample's key."""
        return f"{self.shards[self._shard[index]]}: {self.keys[index]}"

    def places(self) -> ImagePlaces:
        """Each image is a member at a position of its shard."""
        return ImagePlaces(list(map(str, self.shards)), self._shard, self._offset)

    def spans(self, starts: Sequence[int]) -> np.ndarray:
        """int64 (N, 2): position and bytes of each image in memory in which the shards begin at `starts`."""
        return np.column_stack([np.asarray(starts, np.int64)[self._shard] + self._offset, self._size])

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """int64: indices of the samples with these `numbers`. They differ if the conversion left samples out."""
        return np.searchsorted(self.numbers, numbers)

    def stored_order(self) -> np.ndarray:
        """int64 (N,): indices in the order of the samples in the shards."""
        return np.lexsort((self._offset, self._shard))

    def _take_classes(self, labels: Sequence[Label]) -> None:
        table = self.path / TABLE_NAME
        if table.is_file():
            self.labels = np.array([label.number for label in labels], np.int64)
            self.classes = self._read_table(table)
            self.unnamed = self.about.get("unnamed") is True
        else:
            self.classes, _, self.labels, self.unnamed = resolve(labels, str(self.path))

    def _read_table(self, table: Path) -> tuple[str, ...]:
        top = int(self.labels.max())
        try:
            content = decode_json(table.read_text())
            self.about = dict(content)
            classes, num_samples = tuple(content["classes"]), int(content.get("num_samples", len(self)))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise InputError(f'{table} is not of the form {{"classes": [names]}}; write it again') from None
        if not all(isinstance(name, str) for name in classes) or top >= len(classes):
            raise InputError(f"{table} names {len(classes)} classes, but a sample has the label {top}")
        if (self.labels == NO_NUMBER).any():
            raise InputError(f"{table} names the classes, but some samples have no class number; remove the table")
        if num_samples != len(self):
            raise InputError(
                f"{self.path} holds {len(self)} samples, but {TABLE_NAME} counts {num_samples}; copy the missing shards"
            )
        return classes


def _in_order(keys: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keys in the order of the source, the permutation that sorts them, and the keys as numbers."""
    if all(re.fullmatch("[0-9]{1,18}", key) for key in keys):
        numbers = np.array(keys).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        if (np.diff(numbers[order]) > 0).all():
            return [keys[i] for i in order], order, numbers[order]
    return keys, np.arange(len(keys)), np.arange(len(keys), dtype=np.int64)


def _shard_rows(number: int, shard: Path) -> Iterator[tuple[str, int, int, int, Label]]:
    """For each sample of a shard: key, shard number, image offset, image size, label."""
    size = shard.stat().st_size
    seen: set[str] = set()
    with open(shard, "rb", buffering=0) as file:
        for key, members in _samples(shard, file.fileno()):
            name = f"{shard}: {key}"
            if key in seen or len({member.ending for member in members}) < len(members):
                raise InputError(f"{name}: {_why(key, _samples(shard, file.fileno()))}")
            seen.add(key)
            if any(member.offset < 0 or not 0 <= member.size <= size - member.offset for member in members):
                raise InputError(f"{name}: lies outside of the shard; remove {shard.with_suffix('.idx').name}")
            by_ending = {member.ending: member for member in members}
            image = next((member for member in members if member.ending in _IMAGE_ENDINGS), None)
            label = next((by_ending[ending] for ending in _LABEL_ENDINGS if ending in by_ending), None)
            if image is None or label is None:
                raise InputError(f"{name}: {_why(key, _samples(shard, file.fileno()))}")
            yield key, number, image.offset, image.size, _label(file.fileno(), label, name)


def _why(key: str, samples: Iterable[tuple[str, list[_Member]]]) -> str:
    """Why the sample `key` of a shard with these `samples` cannot be used, and the remedy."""
    groups = [[member.ending for member in members] for other, members in samples if other == key]
    endings = [ending for group in groups for ending in group]
    if len(set(endings)) < len(endings):
        return "has two members of the same name; write the shard again"
    if len(groups) > 1:
        return "its members lie apart in the shard; pack them one after the other (tar --sort=name)"
    needs = f"needs an image ({', '.join(_IMAGE_ENDINGS)}) and a member .cls or .json with its class"
    last = [ending for ending in endings if ending.rpartition(".")[2] in (*_IMAGE_ENDINGS, *_LABEL_ENDINGS)]
    dotted = next((ending for ending in last if "." in ending), None)
    if dotted is not None:
        return f"{needs}, but has .{dotted}: webdataset splits names at the first dot; remove other dots"
    there = f"{needs}, but has only {', '.join(f'.{ending}' for ending in endings)}"
    if "/" not in key or set(endings) - set(_IMAGE_ENDINGS):
        return there
    return f"{there}; if the shard is a tar of class folders, give the tar itself to fixres convert"


def _label(descriptor: int, member: _Member, name: str) -> Label:
    if member.size > MAX_LABEL_BYTES:
        raise InputError(f"{name}: its .{member.ending} member has {member.size} bytes, which is too long for a label")
    return _LABEL_ENDINGS[member.ending](os.pread(descriptor, member.size, member.offset), name)


def _samples(shard: Path, descriptor: int) -> Iterable[tuple[str, list[_Member]]]:
    index = shard.with_suffix(".idx")
    return _parse_index(index) if index.is_file() else _scan(shard, descriptor)


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


def _scan(shard: Path, descriptor: int) -> Iterator[tuple[str, list[_Member]]]:
    """Samples from the tar headers, for shards without an index."""
    last, members = None, []
    for member in walk(Span(descriptor), str(shard)):
        key, ending = _split(member.name)
        if key.endswith("/") or not key:  # hidden files, which macOS adds; wds2idx skips them, too
            continue
        if last is not None and key != last:
            yield last, members
            members = []
        last = key
        members.append(_Member(ending.lower(), member.offset, member.size))
    if last is not None:
        yield last, members


def _split(name: str) -> tuple[str, str]:
    """Key and ending. As in webdataset, the ending starts at the first dot of the last path component."""
    folder, _, base = name.rpartition("/")
    key, _, ending = base.partition(".")
    return f"{folder}/{key}" if folder else key, ending
