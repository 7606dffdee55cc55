"""Facts about a data set: counts, classes, sizes, bytes, and the levels of RoC records.

A .beton file has a table of all sizes. For other data, and for RoC levels, random samples are read, the same each time;
`num_looked_at` is their number. No image is decoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fixres.pipelines.crop_index.location import coarse_places, places_of, remedy
from fixres.pipelines.formats import beton_layout as layout
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.inspection.image_headers import random_samples, read_headers
from fixres.pipelines.spec import InputError, Source

# Sides: the usual resolutions are edges. Aspects: edges lie between the usual ratios 1, 5:4, 4:3, 3:2, 16:9 and 2.
SIDE_EDGES = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048, 3072, 4096, 8192)
ASPECT_EDGES = (0.25, 0.4, 0.53, 0.61, 0.70, 0.78, 0.91, 1.1, 1.28, 1.42, 1.65, 1.9, 2.5, 4.0)
_KINDS = {
    "FolderSource": "image folder",
    "PicturesSource": "pictures without classes",
    "TarFolderSource": "tar of class folders",
    "TarSource": "webdataset shards",
}


@dataclass(frozen=True)
class Histogram:
    """A histogram of values."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    """One more than edges: below the first edge, from each edge to the next, and from the last edge on."""


@dataclass(frozen=True)
class ClassFacts:
    """The distribution of all samples over the classes."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    smallest: str
    largest: str
    median_count: float
    empty: tuple[str, ...]


@dataclass(frozen=True)
class ImageFacts:
    """Sizes of stored images in pixels, and their bytes including RoC fields."""

    num_looked_at: int
    short_side: Histogram
    long_side: Histogram
    aspect: Histogram
    """Width over height."""
    mean_bytes: float
    p5_bytes: float
    p95_bytes: float
    format_shares: dict[str, float]
    """Shares by Pillow's name of the format; "raw" means uncompressed pixels."""


@dataclass(frozen=True)
class LevelFacts:
    """One resolution of RoC records."""

    shift: int
    """Its sides are 2**shift times smaller than the image's."""
    sample_share: float
    """Share of the samples that have this level."""
    byte_share: float
    """Share of all stored bytes."""


@dataclass(frozen=True)
class RocFacts:
    """The parts of RoC records."""

    num_looked_at: int
    levels: tuple[LevelFacts, ...]
    index_byte_share: float
    """Share of all stored bytes that locate levels and segments."""


@dataclass(frozen=True)
class IndexFacts:
    """The index of untouched images, with what running processes have added."""

    num_indexed: int
    """Images with checkpoints."""
    num_whole: int
    """Known images without, which are decoded whole."""
    index_bytes: int
    num_levels: int
    """Coarse levels."""
    coarse_bytes: int


@dataclass(frozen=True)
class Inspection:
    """Facts about a data set."""

    path: str
    kind: str
    num_samples: int
    checksum: Literal["matches", "absent"]
    """Whether the file has a checksum of its tables and class names. It does not cover the images. A wrong one is an
    error."""
    classes: ClassFacts
    images: ImageFacts
    roc: RocFacts | None
    index: IndexFacts | None
    """None if the images have no index."""
    bad_samples: tuple[str, ...]
    """A line for each sample that was looked at and is bad."""


def inspect_source(source: Source, path: Path | str, max_looked_at: int = 2000) -> Inspection:
    """Collects the facts about an opened data set; reads the headers or RoC levels of at most `max_looked_at` samples.

    Raises:
        InputError: all samples that were looked at are bad.
    """
    chosen = random_samples(source, max_looked_at)
    kind, checksum, roc = _KINDS.get(type(source).__name__, type(source).__name__), "absent", None
    if isinstance(source, BetonReader):
        kind, checksum = "FFCV .beton", "matches" if _has_checksum(source) else "absent"
        images, bad = _from_tables(source), []
        if "roc" in source.field_names:
            kind, (roc, bad) = "RoC .beton", _roc_facts(source, chosen)
    else:
        headers = read_headers(source, max_looked_at)
        images, bad = _image_facts(headers.sizes, headers.num_bytes, Counter(headers.formats)), headers.bad_samples
    classes = class_facts(source.classes, source.labels)
    index = None if roc else _index_facts(getattr(source, "path", None))
    return Inspection(str(path), kind, len(source), checksum, classes, images, roc, index, tuple(bad))


def class_facts(names: Sequence[str], labels: np.ndarray) -> ClassFacts:
    """Counts by class, from at least one name in label order and int64 (N,) labels below their number."""
    counts = np.bincount(labels, minlength=len(names))
    empty = tuple(names[k] for k in np.flatnonzero(counts == 0))
    smallest, largest = names[int(counts.argmin())], names[int(counts.argmax())]
    return ClassFacts(tuple(names), tuple(counts.tolist()), smallest, largest, float(np.median(counts)), empty)


def histogram(values: np.ndarray, edges: tuple[float, ...]) -> Histogram:
    """Counts of values below the first edge, from each edge (included) to the next, and from the last on."""
    counts, _ = np.histogram(values, [-np.inf, *edges, np.inf])
    return Histogram(edges, tuple(counts.tolist()))


def _image_facts(sizes: np.ndarray, num_bytes: np.ndarray, formats: Counter[str]) -> ImageFacts:
    """Facts from sizes (int64 (N, 2), height and width), bytes (int64 (N,)) and counts of formats."""
    p5, p95 = np.percentile(num_bytes, (5, 95))
    return ImageFacts(
        num_looked_at=len(sizes),
        short_side=histogram(sizes.min(axis=1), SIDE_EDGES),
        long_side=histogram(sizes.max(axis=1), SIDE_EDGES),
        aspect=histogram(sizes[:, 1] / sizes[:, 0], ASPECT_EDGES),
        mean_bytes=float(num_bytes.mean()),
        p5_bytes=float(p5),
        p95_bytes=float(p95),
        format_shares={name: count / len(sizes) for name, count in formats.most_common() if count},
    )


def _from_tables(reader: BetonReader) -> ImageFacts:
    num_bytes = reader.image_spans[:, 1]
    if "roc" in reader.field_names:
        num_bytes = num_bytes + reader.field_spans("roc")[:, 1]
    num_raw = int((reader.modes == layout.MODE_RAW).sum())
    return _image_facts(reader.sizes, num_bytes, Counter(JPEG=len(reader) - num_raw, raw=num_raw))


def _index_facts(data: Path | None) -> IndexFacts | None:
    """What the index of data holds, without writing anything."""
    places = None if data is None else places_of(Path(data))
    if places is None or not any(place.exists() for place in places.read):
        return None
    from fixres.pipelines.crop_index.checkpoints import INDEXED  # imports numba, 0.5 s
    from fixres.pipelines.crop_index.merging import load

    loaded = [load(one.read, remedy=remedy(Path(data), places)) for one in (places, coarse_places(places))]
    entries, levels = (one.tables.entries for one in loaded)
    index_bytes, coarse_bytes = (sum(map(len, one.memories)) for one in loaded)
    num_indexed = int((entries["kind"] == INDEXED).sum())
    return IndexFacts(num_indexed, len(entries) - num_indexed, index_bytes, len(levels), coarse_bytes)


def _has_checksum(reader: BetonReader) -> bool:
    """Whether the first field's arguments point to a checksum. The reader has then compared it."""
    descriptor = reader.data[layout.HEADER.itemsize :][: layout.DESCRIPTOR.itemsize].view(layout.DESCRIPTOR)[0]
    pointer = descriptor["arguments"][: layout.INFO_POINTER.itemsize].view(layout.INFO_POINTER)[0]
    return bool(pointer["magic"] == layout.INFO_MAGIC)


def _roc_facts(reader: BetonReader, chosen: Sequence[int]) -> tuple[RocFacts, list[str]]:
    """Facts about the levels of the chosen records, and a line for each damaged one."""
    num_records, index_bytes, bad = 0, 0, []
    num_by_shift, bytes_by_shift = Counter(), Counter()
    for index in chosen:
        try:
            level_bytes, more_index_bytes = _record_bytes(reader, index)
        except InputError as error:
            bad.append(f"{reader.name(index)}: {error}; convert again")
            continue
        num_records += 1
        index_bytes += more_index_bytes
        num_by_shift.update(level_bytes.keys())
        bytes_by_shift.update(level_bytes)
    if not num_records:
        raise InputError(f"all of {len(bad)} records looked at are damaged, the first is {bad[0]}")
    total = bytes_by_shift.total() + index_bytes
    levels = tuple(
        LevelFacts(shift, num_by_shift[shift] / num_records, size / total)
        for shift, size in sorted(bytes_by_shift.items())
    )
    return RocFacts(num_records, levels, index_bytes / total), bad


def _record_bytes(reader: BetonReader, index: int) -> tuple[Counter[int], int]:
    """Bytes of a record's JPEG files by shift, and bytes of its index."""
    from fixres.pipelines.roc.layout import describe  # imports numba, 0.5 s

    field = bytes(reader.field_bytes("roc", index))
    levels = describe(field, int(reader.image_spans[index, 1]), *map(int, reader.sizes[index]))
    inside = sum(level["size"] for level in levels if not level["in_image"])
    level_bytes: Counter[int] = Counter()
    for level in levels:
        level_bytes[level["shift"]] += level["size"]
    return level_bytes, len(field) - inside
