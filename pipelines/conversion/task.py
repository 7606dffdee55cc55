"""What is converted, how, and what each sample becomes: everything that decides the bytes of the result."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import features

from fixres.pipelines.conversion.verification import check_record
from fixres.pipelines.formats.parts import Part
from fixres.pipelines.formats.samples import EncodedSample, Entry
from fixres.pipelines.imagenet_classes import class_names_of, has_names
from fixres.pipelines.images.codec import check_fit, fit_jpeg
from fixres.pipelines.images.input_formats import ExifOption
from fixres.pipelines.images.jpeg_damage import DamagedOption
from fixres.pipelines.sampling.draws import epoch_order
from fixres.pipelines.spec import BadSampleError, Source
from fixres.pipelines.value_types import check_fields

Format = Literal["roc", "ffcv", "webdataset"]
OnBad = Literal["stop", "skip"]

_SHUFFLE_SEED = 0
_VERSION = 3  # raise it when the same source and options give other bytes


@dataclass(frozen=True)
class ConversionConfig:
    """How a data set is converted."""

    format: Format
    """RoC records or plain JPEGs in a .beton file, or a folder of webdataset shards."""
    max_side: int = 500
    """Longest side of a stored image in pixels."""
    quality: int = 90
    """JPEG quality of images that are encoded again."""
    exif: ExifOption = "ignore"
    """"ignore" the orientation that cameras note, as torchvision's default loader does, or "apply" it."""
    part: Part = field(default_factory=Part)
    """Convert only this part of the data, to a file with a name of its own (`Part.place`)."""
    on_bad: OnBad = "stop"
    """"stop" reads all samples; if any is bad, it raises and keeps the others unfinished. "skip" leaves bad samples
    out. Either way DEST.bad.txt lists them."""
    num_workers: int | None = None
    """Processes; 0 works in this one, None uses all cores."""
    overwrite: bool = False
    """Replace an existing target."""
    restart: bool | None = False
    """Discard an unfinished conversion instead of continuing it; None discards it if its settings are different."""
    progress: bool = True
    """Show a progress bar."""
    damaged: DamagedOption = "refuse"
    """JPEGs with parts for which decoders make up pixels: "refuse" makes them bad samples, "accept" stores what Pillow
    shows."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_fit(self.max_side, self.quality, exif=self.exif)


@dataclass(frozen=True)
class Task:
    """A source and how it is converted."""

    source: Source
    config: ConversionConfig

    @property
    def order(self) -> np.ndarray:
        """int64: the samples to convert, in the order of writing.

        Shards are written in a fixed random order because DALI shuffles within a buffer only.
        """
        shuffle = self.config.format == "webdataset"
        order = epoch_order(len(self.source), _SHUFFLE_SEED, 0, shuffle=shuffle)
        return order[self.config.part.span(len(order))]

    def header(self) -> dict[str, Any]:
        """The first line of the journal; an unfinished conversion is continued only if it is equal."""
        config = self.config
        return {
            "version": _VERSION,
            "format": config.format,
            "max_side": config.max_side,
            "quality": config.quality,
            "exif": config.exif,
            "damaged": config.damaged,
            "part": config.part.describe(),
            "source": source_digest(self.source),
            "files": [_state(file) for file in _archives(self.source)],
            "encoder": {name: features.version(name) for name in ("pil", "jpg", "libjpeg_turbo")},
        }

    def about(self) -> dict[str, Any]:
        """What the data file stores about itself besides its classes."""
        config, names = self.config, class_names_of(self.source)
        about: dict[str, Any] = {"class_names": list(names)} if names != tuple(self.source.classes) else {}
        if not has_names(self.source):
            about["unnamed"] = True
        if config.part.count > 1:
            about["part"] = config.part.describe() | {
                "source_samples": len(self.source),
                "source": source_digest(self.source),
                "file_sizes": _sizes_digest(self.source),
                "options": [config.format, config.max_side, config.quality, config.exif, config.damaged],
            }
        return about


def source_digest(source: Source) -> str:
    """Digest of classes, labels and sample names: what is known without reading images."""
    digest = hashlib.sha256(json.dumps(list(source.classes)).encode())
    digest.update(np.asarray(source.labels, np.int64).tobytes())
    for index in range(len(source)):
        digest.update(source.name(index).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def _archives(source: Source) -> list[Path]:
    """The files of a source that hold many samples each; none if each sample has its own file."""
    source = getattr(source, "source", source)
    path = getattr(source, "path", None)
    if hasattr(source, "files") or path is None:
        return []
    folder = sorted(Path(path).iterdir()) if Path(path).is_dir() else [Path(path)]
    return list(getattr(source, "shards", folder))


def _state(file: Path | str) -> list[int]:
    """Size and modification time in nanoseconds; -1 for a missing file, which reading it reports."""
    try:
        found = os.stat(file)
    except OSError:
        return [-1, -1]
    return [found.st_size, found.st_mtime_ns]


def _sizes_digest(source: Source) -> str:
    """Digest of the sizes of a source's files. Times differ between the copies that the machines of a cluster have."""
    files = getattr(getattr(source, "source", source), "files", None)
    sizes = [_state(file)[0] for file in (_archives(source) if files is None else files)]
    return hashlib.sha256(np.array(sizes, np.int64).tobytes()).hexdigest()[:16]


def stamp(source: Source, index: int) -> int:
    """A number for the size and time of a sample's file; 0 if it has no file of its own."""
    files = getattr(getattr(source, "source", source), "files", None)
    return zlib.crc32(str(_state(files[index])).encode()) if files is not None else 0


def fit_for(format: Format) -> Callable:
    """The function that turns an image file into a stored image."""
    if format != "roc":
        return fit_jpeg
    from PIL import Image

    from fixres.pipelines.roc.encoder import encode, fit_roc  # imports numba, 0.5 s, once here and not in each worker

    encode(Image.new("RGB", (256, 256)))  # loads the compiled kernels before the workers fork; two levels need all
    return fit_roc


def prepare_samples(task: Task, fit: Callable, indices: np.ndarray) -> list[tuple[Entry, EncodedSample | None]]:
    """Runs in a worker: converts a chunk of samples. Bad samples have an entry only."""
    return [_prepare_one(task, fit, int(index)) for index in indices]


def _prepare_one(task: Task, fit: Callable, index: int) -> tuple[Entry, EncodedSample | None]:
    source, config, label = task.source, task.config, int(task.source.labels[index])
    state = stamp(source, index)  # before it is read: a file that is replaced now is converted again after a restart
    try:
        check_record(source, index)
        data = source.read(index)
        image, height, width, *extra = fit(
            data,
            source.name(index),
            index,
            config.max_side,
            config.quality,
            exif=config.exif,
            damaged=config.damaged,
        )
    except BadSampleError as error:
        return Entry(index, label, 0, 0, False, (), str(error), state), None
    sizes = tuple(map(len, (image, *extra)))
    entry = Entry(index, label, height, width, image is data, sizes, "", state)
    return entry, EncodedSample(image, height, width, label, index, tuple(extra))
