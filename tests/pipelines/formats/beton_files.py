"""Small .beton files for tests, written by our writer or ffcv's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.formats import beton_layout as layout
from fixres.pipelines.formats.samples import EncodedSample
from tests.coded import coded_image, jpeg

CLASSES = ("cat", "dog", "küche")
START = layout.metadata_start(3)  # of the metadata in files with fields image, label and bytes
ROW = 40  # bytes of a sample in it
SIZES = [(20 + 3 * i, 34 - 2 * i) for i in range(10)]


def samples(num: int = len(SIZES), extra: bool = False) -> list[EncodedSample]:
    return [
        EncodedSample(jpeg(coded_image(*SIZES[i], i)), *SIZES[i], i % 3, i, (b"roc" * (i + 1),) if extra else ())
        for i in range(num)
    ]


class Coded:
    """The same images as a data set for ffcv's writer."""

    def __init__(self, with_bytes: bool) -> None:
        self.with_bytes = with_bytes

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, i: int) -> tuple:
        extra = (np.frombuffer(b"roc" * (i + 1), np.uint8),) if self.with_bytes else ()
        return coded_image(*SIZES[i], i), i % 3, *extra


def write_stock(path: Path, with_bytes: bool = False, num_workers: int = 1, **image_options: object) -> Path:
    """Writes the images with ffcv's writer."""
    fields = pytest.importorskip("ffcv.fields")
    from ffcv.writer import DatasetWriter

    columns = {"image": fields.RGBImageField(**image_options), "label": fields.IntField()}
    if with_bytes:
        columns["roc"] = fields.BytesField()
    DatasetWriter(str(path), columns, num_workers=num_workers).from_indexed_dataset(Coded(with_bytes), chunksize=3)
    return path
