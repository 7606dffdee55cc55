"""Crops by an index, decoded by engine `roc`'s kernels and by the GPU's."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fixres.pipelines.crop_index import checkpoints as ck
from fixres.pipelines.crop_index.crops import BODY, BODY_SIZE, HEADERS, NUM_PLACE_COLUMNS, decode_indexed
from fixres.pipelines.crop_index.gpu.plan import pack_crops, plan_crops
from fixres.pipelines.roc import layout
from fixres.pipelines.roc.gpu import crop_plan
from fixres.pipelines.roc.gpu.arguments import Batch, Launch, launches
from tests.pipelines.roc.gpu import decoding, host_build


@dataclass
class Crops:
    """Files with their checkpoints, and a crop to make of each; arrays are those of `decode_indexed`."""

    data: np.ndarray
    places: np.ndarray
    samples: np.ndarray
    words: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray
    bicubic: np.ndarray
    inside: bool
    min_zoom: float
    resolution: int

    def __len__(self) -> int:
        return len(self.places)


def crops_of(files: Sequence[tuple[bytes, ck.Checkpoints]], resolution: int, seed: int, min_zoom: float) -> Crops:
    """A crop of each file with box, flip and filter at random; of even seeds like those of training."""
    random, num = np.random.default_rng(seed), len(files)
    sizes = np.array([len(jpeg) for jpeg, _ in files])
    starts = np.cumsum(sizes) - sizes
    samples = np.array([found.sample for _, found in files])
    num_words = np.array([found.words.size for _, found in files])
    samples[:, ck.FIRST] += np.cumsum(num_words) - num_words
    places, headers = np.zeros((num, NUM_PLACE_COLUMNS), np.int64), np.clip(samples[:, ck.HEADER_SIZE], 0, sizes)
    places[:, HEADERS], places[:, BODY], places[:, BODY_SIZE] = starts, starts + headers, sizes - headers
    extents = np.maximum(samples[:, [ck.HEIGHT, ck.WIDTH]], 1).astype(float)
    lengths = np.maximum(random.random((num, 2)), 1e-3) * extents
    boxes = np.concatenate([random.random((num, 2)) * (extents - lengths), lengths], axis=1)
    data, words = b"".join(jpeg for jpeg, _ in files), np.concatenate([found.words for _, found in files])
    words.flags.writeable = False  # as the engine has them; else the kernels are compiled again
    flips, bicubic = random.random((2, num)) < 0.5
    stored = np.frombuffer(data, np.uint8), places, samples, words
    return Crops(*stored, boxes, flips, bicubic, seed % 2 == 0, min_zoom, resolution)


def by_cpu(crops: Crops) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, codes and counts of engine `roc`."""
    num, side = len(crops), crops.resolution
    images, codes = np.zeros((num, side, side, 3), np.uint8), np.zeros(num, np.int64)
    counts = np.zeros((num, layout.NUM_COUNTS), np.int64)
    stored = crops.data, crops.places, crops.samples, crops.words
    chosen = crops.boxes, crops.flips, crops.bicubic, crops.inside, crops.min_zoom
    decode_indexed(*stored, *chosen, images, codes, counts)
    return images, codes, counts


class Prepared(decoding.Prepared):
    """A batch as the kernels take it, in host memory."""

    def launches(self) -> tuple[Launch, ...]:
        most, num_bicubic = (int(self.plans[:, column].max()) for column in (crop_plan.NUM_SEGMENTS, crop_plan.BICUBIC))
        return launches(len(self.plans), self.resolution, max(most, 1), num_bicubic, by_index=True)


def prepare(crops: Crops) -> Prepared:
    """Plans and packs a batch. What is packed ends where its memory does, except for the padding."""
    num, side = len(crops), crops.resolution
    plans, level_boxes = np.empty((num, crop_plan.NUM_PLAN), np.int64), np.empty((num, 4))
    codes, counts = np.empty(num, np.int64), np.empty((num, layout.NUM_COUNTS), np.int64)
    stored = crops.data, crops.places, crops.samples, crops.words
    chosen = crops.boxes, crops.flips, crops.bicubic, side, crops.inside, crops.min_zoom
    size = plan_crops(*stored, *chosen, plans, level_boxes, codes, counts)
    out = np.full(size // 4 + 1, 0x5A5A5A5A, np.uint32)
    used = pack_crops(*stored, plans, codes, counts, out)
    assert used % 4 == 0 and used + crop_plan.PADDING <= size
    packed = out[: (used + crop_plan.PADDING) // 4].view(np.uint8).copy()
    return Prepared(packed, plans, level_boxes, codes, counts, crop_plan.lay_out_scratch(plans, side)[0], side)


def by_gpu(crops: Crops, loaded: ctypes.CDLL) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from the host build of the kernels."""
    prepared = prepare(crops)
    images = np.zeros((len(crops), crops.resolution, crops.resolution, 3), np.uint8)
    scratch = np.full(prepared.scratch_size // 16 + 1, np.nan, np.complex128)  # aligned to 16 bytes
    batch = Batch(num=len(crops), resolution=crops.resolution)
    arrays = (prepared.stored, prepared.plans, prepared.level_boxes, scratch, images, prepared.codes)
    for name, array in zip(("bytes", "crops", "boxes", "scratch", "out", "codes"), arrays, strict=True):
        setattr(batch, name, array.ctypes.data)
    for launch in prepared.launches():
        host_build.run(loaded, launch, batch)
    return images, prepared.codes, prepared.counts
