"""What a data set holds: counts, classes, sizes, bytes, and for RoC records what their levels cost.

A .beton file has the sizes of all images in its tables. Of other data the headers of some images are read, chosen by
chance and the same ones each time; `num_looked_at` says how many. No image is decoded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipelines.formats import beton_layout as layout
from pipelines.formats.beton_reader import BetonReader
from pipelines.images.input_formats import open_image
from pipelines.spec import BadSampleError, InputError, Source

# Sides: the usual resolutions are edges. Aspects: edges lie between the usual ratios 1, 5:4, 4:3, 3:2, 16:9 and 2.
SIDE_EDGES = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048, 3072, 4096, 8192)
ASPECT_EDGES = (0.25, 0.4, 0.53, 0.61, 0.70, 0.78, 0.91, 1.1, 1.28, 1.42, 1.65, 1.9, 2.5, 4.0)
_KINDS = {"FolderSource": "image folder", "TarSource": "webdataset shards"}
_SEED = 0


@dataclass(frozen=True)
class Histogram:
    """How values are distributed."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    """One more than edges: below the first, from each to the next, from the last on."""


@dataclass(frozen=True)
class ClassFacts:
    """How samples are distributed over classes; counts are over all samples."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    smallest: str
    largest: str
    median_count: float
    empty: tuple[str, ...]


@dataclass(frozen=True)
class ImageFacts:
    """Sizes of stored images in pixels, and their bytes with everything stored beside them."""

    num_looked_at: int
    short_side: Histogram
    long_side: Histogram
    aspect: Histogram
    """Width over height."""
    mean_bytes: float
    p5_bytes: float
    p95_bytes: float
    format_shares: dict[str, float]
    """By Pillow's name of the format, or "raw" for pixels."""


@dataclass(frozen=True)
class LevelFacts:
    """One resolution of RoC records."""

    shift: int
    """Sides are 2**shift times smaller than the image's."""
    sample_share: float
    """Share of the samples that have it."""
    byte_share: float
    """Share of all stored bytes."""


@dataclass(frozen=True)
class RocFacts:
    """What RoC records are made of."""

    num_looked_at: int
    levels: tuple[LevelFacts, ...]
    index_byte_share: float
    """Share of all stored bytes that say where levels and segments lie."""


@dataclass(frozen=True)
class Inspection:
    """What a data set holds."""

    path: str
    kind: str
    num_samples: int
    checksum: Literal["matches", "absent"]
    """Whether the file carries a checksum of its tables; one that does not match is an error."""
    classes: ClassFacts
    images: ImageFacts
    roc: RocFacts | None
    bad_samples: tuple[str, ...]
    """A line for each sample that was looked at and cannot be used."""


def inspect_source(source: Source, path: Path | str, max_looked_at: int = 2000) -> Inspection:
    """Looks at an opened data set.

    Args:
        source: the data set.
        path: where it lies; for the record.
        max_looked_at: images whose headers, or records whose levels, are read where no table has what is wanted.

    Raises:
        InputError: no sample that was looked at is usable.
    """
    if max_looked_at < 1:
        raise InputError(f"{max_looked_at} samples to look at are too few; take at least 1")
    chosen = np.random.default_rng(_SEED).permutation(len(source))[:max_looked_at]
    chosen.sort()
    kind, checksum, roc = _KINDS.get(type(source).__name__, type(source).__name__), "absent", None
    if isinstance(source, BetonReader):
        kind, checksum = "FFCV .beton", "matches" if _has_checksum(source) else "absent"
        images, bad = _from_tables(source), []
        if "roc" in source.field_names:
            kind, (roc, bad) = "RoC .beton", _roc_facts(source, chosen)
    else:
        images, bad = _look(source, chosen)
    classes = class_facts(source.classes, source.labels)
    return Inspection(str(path), kind, len(source), checksum, classes, images, roc, tuple(bad))


def class_facts(names: Sequence[str], labels: np.ndarray) -> ClassFacts:
    """Counts by class.

    Args:
        names: in label order, at least one.
        labels: int64 (N,), in [0, len(names)).
    """
    counts = np.bincount(labels, minlength=len(names))
    empty = tuple(names[k] for k in np.flatnonzero(counts == 0))
    smallest, largest = names[int(counts.argmin())], names[int(counts.argmax())]
    return ClassFacts(tuple(names), tuple(counts.tolist()), smallest, largest, float(np.median(counts)), empty)


def histogram(values: np.ndarray, edges: tuple[float, ...]) -> Histogram:
    """Counts of values below the first edge, from each edge (included) to the next, and from the last on."""
    places = np.searchsorted(edges, values, side="right")
    return Histogram(edges, tuple(np.bincount(places, minlength=len(edges) + 1).tolist()))


def _image_facts(sizes: np.ndarray, num_bytes: np.ndarray, formats: dict[str, int]) -> ImageFacts:
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
        format_shares={name: count / len(sizes) for name, count in formats.items() if count},
    )


def _look(source: Source, chosen: np.ndarray) -> tuple[ImageFacts, list[str]]:
    """Facts from the headers of chosen images, and a line for each that has none."""
    sizes, num_bytes, formats, bad = [], [], Counter(), []
    for index in chosen.tolist():
        try:
            data = source.read(index)
            with open_image(data, source.name(index), index) as image:
                sizes.append((image.height, image.width))
                formats[image.format or "unknown"] += 1
            num_bytes.append(len(data))
        except BadSampleError as error:
            bad.append(str(error))
    if not sizes:
        raise InputError(f"all of {len(bad)} images looked at cannot be used, the first is {bad[0]}")
    return _image_facts(np.array(sizes, np.int64), np.array(num_bytes, np.int64), dict(formats.most_common())), bad


def _from_tables(reader: BetonReader) -> ImageFacts:
    num_bytes = reader.image_spans[:, 1]
    if "roc" in reader.field_names:
        num_bytes = num_bytes + reader.field_spans("roc")[:, 1]
    num_raw = int((reader.modes == layout.MODE_RAW).sum())
    return _image_facts(reader.sizes, num_bytes, {"JPEG": len(reader) - num_raw, "raw": num_raw})


def _has_checksum(reader: BetonReader) -> bool:
    """Whether the first field's arguments lead to a checksum; the reader has then compared it."""
    descriptor = reader.data[layout.HEADER.itemsize :][: layout.DESCRIPTOR.itemsize].view(layout.DESCRIPTOR)[0]
    pointer = descriptor["arguments"][: layout.INFO_POINTER.itemsize].view(layout.INFO_POINTER)[0]
    return bool(pointer["magic"] == layout.INFO_MAGIC)


class _Record(NamedTuple):
    level_bytes: dict[int, int]
    """Bytes of the JPEG file by shift."""
    index_bytes: int


def _roc_facts(reader: BetonReader, chosen: np.ndarray) -> tuple[RocFacts, list[str]]:
    records, bad = [], []
    for index in chosen.tolist():
        try:
            records.append(_record(reader, index))
        except InputError as error:
            bad.append(f"{reader.name(index)}: {error}; convert again")
    if not records:
        raise InputError(f"all of {len(bad)} records looked at are damaged, the first is {bad[0]}")
    num, level_bytes, index_bytes = Counter(), Counter(), sum(record.index_bytes for record in records)
    for record in records:
        num.update(record.level_bytes.keys())
        level_bytes.update(record.level_bytes)
    total = level_bytes.total() + index_bytes
    levels = tuple(
        LevelFacts(shift, num[shift] / len(records), level_bytes[shift] / total) for shift in sorted(level_bytes)
    )
    return RocFacts(len(records), levels, index_bytes / total), bad


def _record(reader: BetonReader, index: int) -> _Record:
    from pipelines.roc.layout import describe  # imports numba, 0.5 s

    field = bytes(reader.field_bytes("roc", index))
    levels = describe(field, int(reader.image_spans[index, 1]), *map(int, reader.sizes[index]))
    inside = sum(level["size"] for level in levels if not level["in_image"])
    level_bytes = Counter()
    for level in levels:
        level_bytes[level["shift"]] += level["size"]
    return _Record(dict(level_bytes), len(field) - inside)
