"""Shared by the loaders' tests: data of all kinds, and a loop that collects an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.pipelines.formats.beton_writer import write_beton
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.formats.webdataset_writer import write_shards
from fixres.pipelines.roc.encoder import RocQuality, encode
from fixres.pipelines.spec import Batch, EvalCrop, Loader, LoaderConfig, TrainCrop
from tests.coded import NUM_CODES, coded_image, jpeg, read_box

CLASSES = ("class_00", "class_01")


class Seen(NamedTuple):
    """One epoch of one loader: images (N, r, r, 3), labels and indices (N,), sizes of its batches."""

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    batch_sizes: list[int]

    def by_index(self) -> np.ndarray:
        return self.images[np.argsort(self.indices)]


def config(path: Path, **changes: object) -> LoaderConfig:
    settings = {"crop": EvalCrop(), "resolution": 48, "batch_size": 5, "num_workers": 1, "seed": 3}
    return LoaderConfig(**{"path": path, **settings, **changes})


def check(batch: Batch, resolution: int) -> None:
    """The promises of `fixres.pipelines.spec.Batch`."""
    num = len(batch.labels)
    assert batch.images.shape == (num, resolution, resolution, 3)
    assert str(batch.images.dtype) == "torch.uint8" and batch.images.is_contiguous()
    assert batch.labels.shape == batch.indices.shape == (num,)
    assert str(batch.labels.dtype) == str(batch.indices.dtype) == "torch.int64"


def collect(loader: Loader) -> Seen:
    """A whole epoch. Batches are kept without a copy, so reused buffers would be noticed."""
    batches = list(loader)
    for batch in batches:
        check(batch, loader.resolution)
    parts = [np.concatenate([np.asarray(batch[k]) for batch in batches]) for k in range(3)]
    return Seen(*parts, [len(batch.labels) for batch in batches])


def encoded(sizes: list[tuple[int, int]], order: list[int] | None = None) -> list[EncodedSample]:
    """Coded images: sample i has size sizes[i], code i and class i modulo 2."""
    order = list(range(len(sizes))) if order is None else order
    return [EncodedSample(jpeg(coded_image(*sizes[i], i)), *sizes[i], i % 2, i) for i in order]


def write_coded_beton(path: Path, sizes: list[tuple[int, int]]) -> Path:
    write_beton(path, encoded(sizes), len(sizes), classes=CLASSES)
    return path


def write_coded_roc(path: Path, sizes: list[tuple[int, int]]) -> Path:
    """The same with RoC records."""
    options = RocQuality(quality=95, coarse_quality=95, subsampling="4:4:4", min_short_side=16)

    def samples() -> Iterator[EncodedSample]:
        for i, size in enumerate(sizes):
            image, record = encode(coded_image(*size, i), options)
            yield EncodedSample(image, *size, i % 2, i, (record,))

    write_beton(path, samples(), len(sizes), classes=CLASSES, extra_fields=("roc",))
    return path


def write_coded_shards(folder: Path, sizes: list[tuple[int, int]]) -> Path:
    order = np.random.default_rng(1).permutation(len(sizes)).tolist()
    write_shards(folder, encoded(sizes, order), CLASSES, samples_per_shard=7)
    return folder


def check_codes(seen: Seen, codes: np.ndarray, labels: np.ndarray) -> None:
    """Blue encodes the image's code, so image, index and label must match; swapped channels would be noticed."""
    blue = seen.images[..., 2].reshape(len(seen.images), -1).mean(axis=1)
    assert np.rint((blue - 16) / 32).astype(int).tolist() == (codes[seen.indices] % NUM_CODES).tolist()
    assert seen.labels.tolist() == labels[seen.indices].tolist()


def check_boxes(seen: Seen, sizes: np.ndarray, yxhw: np.ndarray, flip: np.ndarray, tolerance: float = 0.04) -> None:
    """Each image shows its box, within a share of the box's side (JPEG noise, rounding to 8 bits)."""
    for image, index in zip(seen.images, seen.indices, strict=True):
        *shown, mirrored = read_box(image, *sizes[index])
        y, x, h, w = yxhw[index]
        if min(h, w) < 20:  # too few gray levels to measure
            continue
        error = np.abs(np.array(shown) - (y, x, h, w)) / (h, w, h, w)
        # One gray level is worth side / 255 pixels of the stored image.
        slack = tolerance + 1.5 * np.array([*sizes[index], *sizes[index]]) / 255 / (h, w, h, w)
        assert (error < slack).all() and mirrored == flip[index], (index, shown, yxhw[index])


TRAIN = TrainCrop(scale=(0.2, 1.0))
