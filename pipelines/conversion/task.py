"""What is converted into what, and what becomes of each sample: all that decides a byte of the result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import features

from pipelines.formats.entry import Entry
from pipelines.formats.parts import Part
from pipelines.imagenet_classes import class_names_of
from pipelines.images.codec import EncodedSample, fit_jpeg
from pipelines.images.input_formats import ExifOption
from pipelines.sampling.order import epoch_order
from pipelines.spec import BadSampleError, Source

Format = Literal["roc", "ffcv", "webdataset"]

_SHUFFLE_SEED = 0
_VERSION = 1  # raise it when the same source and options come to give other bytes


@dataclass(frozen=True)
class Task:
    """What is converted into what; everything that decides a byte of the result."""

    source: Source
    format: Format
    max_side: int
    quality: int
    exif: ExifOption
    part: Part
    fingerprint: str
    """Of the images' contents, where it is known."""

    @property
    def order(self) -> np.ndarray:
        """int64: the samples to convert, in the order of writing."""
        order = epoch_order(len(self.source), _SHUFFLE_SEED, 0, shuffle=self.format == "webdataset")
        return order[self.part.span(len(order))]

    def header(self) -> dict[str, Any]:
        """What a journal must say for an unfinished file to be continued."""
        versions = {name: features.version(name) for name in ("pil", "jpg", "libjpeg_turbo")}
        return {
            "version": _VERSION,
            "format": self.format,
            "max_side": self.max_side,
            "quality": self.quality,
            "exif": self.exif,
            "part": self.part.describe(),
            "source": source_digest(self.source) + self.fingerprint,
            "encoder": versions,
        }

    def about(self) -> dict[str, Any]:
        """What the data itself tells beside its classes."""
        names = class_names_of(self.source)
        about: dict[str, Any] = {"class_names": list(names)} if names != tuple(self.source.classes) else {}
        if self.part.count > 1:
            about["part"] = self.part.describe() | {
                "source_samples": len(self.source),
                "source": source_digest(self.source),
                "options": [self.format, self.max_side, self.quality, self.exif],
            }
        return about


def source_digest(source: Source) -> str:
    """Digest of what a source holds, as far as it tells without reading images: classes, labels, names."""
    digest = hashlib.sha256(json.dumps(list(source.classes)).encode())
    digest.update(np.asarray(source.labels, np.int64).tobytes())
    for index in range(len(source)):
        digest.update(source.name(index).encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()[:16]


def fit_for(format: Format) -> Callable:
    """What makes a stored image of an image file."""
    if format != "roc":
        return fit_jpeg
    from PIL import Image

    from pipelines.roc.encoder.record import encode, fit_roc  # numba takes 0.5 s, here once and not in each worker

    encode(Image.new("RGB", (256, 256)))  # two levels: loads the machine code likewise
    return fit_roc


def prepare_samples(task: Task, fit: Callable, indices: np.ndarray) -> list[tuple[Entry, EncodedSample | None]]:
    """In a worker: what a chunk of samples becomes."""
    return [_prepare_one(task, fit, int(index)) for index in indices]


def _prepare_one(task: Task, fit: Callable, index: int) -> tuple[Entry, EncodedSample | None]:
    source, label = task.source, int(task.source.labels[index])
    try:
        data = source.read(index)
        image, height, width, *extra = fit(data, source.name(index), index, task.max_side, task.quality, exif=task.exif)
    except BadSampleError as error:
        return Entry(index, label, 0, 0, False, (), str(error)), None
    sizes = tuple(map(len, (image, *extra)))
    entry = Entry(index, label, height, width, image is data, sizes, "")
    return entry, EncodedSample(image, height, width, label, index, tuple(extra))
