"""Builds the index of a data set before any training: reads and scans all images that it does not know yet."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejpeg

from fixres.pipelines.crop_index.checkpoints import INDEXED, REASONS
from fixres.pipelines.crop_index.index import MIN_COARSE_SIDE, CropIndex, images_of
from fixres.pipelines.crop_index.journal import journals_of
from fixres.pipelines.crop_index.location import call, coarse_places, places_of
from fixres.pipelines.crop_index.store import join
from fixres.pipelines.formats.parts import Part
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.roc.halving import halve
from fixres.pipelines.runtime.atomic_files import atomic_file
from fixres.pipelines.runtime.notices import notice
from fixres.pipelines.runtime.process_pool import num_processes
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources.layout import find_splits
from fixres.pipelines.sources.tree import DiskFolder
from fixres.pipelines.spec import BadSampleError, InputError, Source, check_fields, one_line

_CHUNK = 32  # images that a thread takes at a time; what is lost if the process is killed
# With 85, checkpoints and levels together take more than a quarter of 500 px photographs at quality 90.
_QUALITY = 82


@dataclass(frozen=True)
class IndexingConfig:
    """How an index is built."""

    num_workers: int | None = None
    """Threads; all cores by default."""
    overwrite: bool = False
    """Build a new index even if there is one, or if it is damaged."""
    part: Part = field(default_factory=Part)
    """Which part of the images this process takes; others take the others, and each merges what it finds."""
    progress: bool = True
    """Show a bar."""
    coarse: bool = False
    """Also store each image at half its size, for crops that need no more."""

    def __post_init__(self) -> None:
        check_fields(self)
        num_processes(self.num_workers, 1)  # refuses numbers out of range
        if self.overwrite and self.part.count > 1:
            raise InputError(
                "overwrite would remove what the other parts have found; remove the index once, by hand, and index all"
                " parts without --overwrite"
            )


@dataclass(frozen=True)
class Indexed:
    """What an index holds."""

    path: Path
    """The index."""
    num_images: int
    """Images of the data set."""
    num_indexed: int
    """Images with checkpoints."""
    num_kept: int
    """Images that were known before, and had not changed."""
    decoded_whole: dict[str, int]
    """Numbers of known images without checkpoints, by the reason."""
    image_bytes: int
    """Of all known images."""
    index_bytes: int
    """Of the checkpoints."""
    num_levels: int
    """Images with a coarse level."""
    coarse_bytes: int
    """Of the coarse levels."""
    seconds: float
    bad_samples: tuple[str, ...]
    """A line for each image that cannot be read."""
    report: Path | None
    """The file with these lines; None if there are none."""


def splits_in(data: Path) -> list[Path]:
    """The folders of the splits in a folder of class folders; `data` itself if it has none."""
    splits = find_splits(DiskFolder(data)) if data.is_dir() else {}
    return [folder.path for folder in splits.values()] or [data]


def build_index(source: Source, config: IndexingConfig | None = None) -> Indexed:
    """Scans the images that the index of `source` does not know, or that have changed since, and makes coarse levels.

    An interrupted call loses at most the images that its threads were at; the next one continues. Images that cannot be
    read are listed in a file beside the index, INDEX.bad.txt.

    Raises:
        InputError: images of this kind get no index, or the index is damaged and `overwrite` is not set.
        OSError: the disk is full or fails.
    """
    config, began = config or IndexingConfig(), time.perf_counter()
    if config.overwrite:
        _remove(source, config.coarse)
    index = CropIndex(source)
    for store in index.stores:
        store.must_write = True
    unknown, span, bad = index.unknown(), config.part.span(len(index)), []
    num_kept, wanted = len(index) - len(unknown), unknown
    if config.coarse:
        wanted = np.union1d(unknown, np.flatnonzero(index.lack_level()))
    wanted = wanted[(span.start <= wanted) & (wanted < span.stop)]
    chunks = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
    bar = progress_bar(len(wanted), f"indexing {source.path}", shown=config.progress)
    with bar, ThreadPoolExecutor(max(1, num_processes(config.num_workers, len(chunks)))) as pool:
        try:
            found = pool.map(lambda chunk: _scan(index, source, chunk, config.coarse), chunks)
            for chunk, lines in zip(chunks, found, strict=True):
                bad += lines
                bar.update(len(chunk))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            index.close()
            raise
    index.finish()
    report = _report(config.part.place(index.places.written.with_name(f"{index.places.written.name}.bad.txt")), bad)
    return _outcome(index, num_kept, time.perf_counter() - began, bad, report)


def _report(path: Path, bad: list[str]) -> Path | None:
    """Lists images that cannot be read; without any, removes the list of an earlier call."""
    if not bad:
        path.unlink(missing_ok=True)
        return None
    with atomic_file(path, overwrite=True) as partial:
        partial.write_text("".join(f"{one_line(line)}\n" for line in bad), errors="surrogateescape")
    return path


def _remove(source: Source, coarse: bool) -> None:
    data, table = Path(source.path), images_of(source).table
    places = places_of(data, table)
    if not coarse and (levels := [place for place in coarse_places(places).read if place.exists()]):
        notice(f"{levels[0]}: the coarse levels are removed, too; {call(data, table, 'coarse')} makes them again")
    for place in (*places.read, *coarse_places(places).read):
        for path in (place, *journals_of(place)):
            path.unlink(missing_ok=True)


def _scan(index: CropIndex, source: Source, indices: np.ndarray, coarse: bool) -> list[str]:
    """Adds some images to the index; returns a line for each that cannot be read."""
    read, images, bad = [], [], []
    stamps = index.stamps(indices)
    for slot, one in enumerate(indices.tolist()):
        try:
            images.append(source.read(one))
            read.append(slot)
        except BadSampleError as error:
            bad.append(str(error))
    index.find(indices[read], stamps[read], *join(images))
    if coarse:
        bad += _add_levels(index, source, indices[read], stamps[read], images)
    return bad


def _add_levels(
    index: CropIndex, source: Source, indices: np.ndarray, stamps: np.ndarray, images: list[bytes]
) -> list[str]:
    """Adds the coarse levels of images that lack one; returns a line for each image that cannot be decoded."""
    made, sizes, jpegs, bad = [], [], [], []
    for slot in np.flatnonzero(index.lack_level(indices)).tolist():
        try:
            pixels = decode_rgb(images[slot], source.name(int(indices[slot])), int(indices[slot]))
        except BadSampleError as error:
            bad.append(str(error))
            continue
        made.append(slot)
        sizes.append(pixels.shape[:2])
        jpegs.append(coarse_level(pixels))
    index.add_levels(indices[made], stamps[made], np.array(sizes).reshape(-1, 2), jpegs)
    return bad


def coarse_level(pixels: np.ndarray) -> bytes:
    """An image, uint8 (H, W, 3), as a JPEG file of half its size; b"" if it is too small for that."""
    if (min(pixels.shape[:2]) + 1) // 2 < MIN_COARSE_SIDE:
        return b""
    return simplejpeg.encode_jpeg(halve(pixels), _QUALITY, "RGB", "420")


def _outcome(index: CropIndex, num_kept: int, seconds: float, bad: list[str], report: Path | None) -> Indexed:
    entries, place = index.entries, index.places.written
    kinds = Counter(entries["kind"].tolist())
    return Indexed(
        path=place,
        num_images=len(index),
        num_indexed=kinds.pop(INDEXED, 0),
        num_kept=num_kept,
        decoded_whole={REASONS[kind]: num for kind, num in sorted(kinds.items(), key=lambda one: (-one[1], one[0]))},
        image_bytes=int(entries["size"].sum()),
        index_bytes=_size(place),
        num_levels=index.num_levels,
        coarse_bytes=_size(coarse_places(index.places).written),
        seconds=seconds,
        bad_samples=tuple(bad),
        report=report,
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
