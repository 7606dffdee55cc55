"""Crops decoded by engine `roc`'s kernels and by the GPU's, from records of all kinds."""

from __future__ import annotations

import ctypes
import io
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from fixres.pipelines.roc import layout
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.encoder import RocQuality, encode, index_jpeg
from fixres.pipelines.roc.gpu import crop_plan
from fixres.pipelines.roc.gpu.arguments import UINT8, Batch, Launch, launches
from tests.pipelines.roc.conftest import photo
from tests.pipelines.roc.gpu import host_build

SIZES = ((500, 375), (1, 1), (3, 200), (4, 97), (97, 4), (5, 97), (16, 16), (17, 33), (200, 3), (251, 333), (4, 20))


@dataclass
class Crops:
    """A file, n of its samples, and the crops to make of them; arrays are those of `crops.decode_samples`."""

    data: np.ndarray
    table: np.ndarray
    boxes: np.ndarray
    flips: np.ndarray
    bicubic: np.ndarray
    resolution: int
    inside: bool
    min_zoom: float

    def __len__(self) -> int:
        return len(self.table)


def by_cpu(crops: Crops) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, codes and counts of engine `roc`."""
    num, r = len(crops), crops.resolution
    images, codes = np.zeros((num, r, r, 3), np.uint8), np.zeros(num, np.int64)
    counts = np.zeros((num, layout.NUM_COUNTS), np.int64)
    chosen = crops.boxes, crops.flips, crops.bicubic
    decode_samples(crops.data, crops.table, *chosen, crops.inside, crops.min_zoom, images, codes, counts)
    return images, codes, counts


@dataclass
class Prepared:
    """A batch as the kernels take it, in host memory."""

    stored: np.ndarray
    plans: np.ndarray
    level_boxes: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    scratch_size: int
    resolution: int

    def launches(self) -> tuple[Launch, ...]:
        num_segments = self.plans[:, crop_plan.ROWS] * self.plans[:, crop_plan.COLUMNS]
        num_bicubic = int(self.plans[:, crop_plan.BICUBIC].sum())
        return launches(len(self.plans), self.resolution, int(num_segments.max()), num_bicubic)


def prepare(crops: Crops, packed: bool = True) -> Prepared:
    """Plans a batch and packs its bytes, or leaves them as they are in the file."""
    num, r = len(crops), crops.resolution
    plans, level_boxes = np.empty((num, crop_plan.NUM_PLAN), np.int64), np.empty((num, 4))
    codes, counts = np.empty(num, np.int64), np.empty((num, layout.NUM_COUNTS), np.int64)
    chosen = crops.boxes, crops.flips, crops.bicubic
    crop_plan.plan_crops(crops.data, crops.table, *chosen, r, crops.inside, crops.min_zoom, plans, level_boxes, codes,
                         counts)  # fmt: skip
    starts = np.empty(num, np.int64)
    if packed:
        stored = np.full(crop_plan.packed_starts(plans, counts, starts), 0x5A, np.uint8)
        crop_plan.pack_crops(crops.data, plans, starts, stored)
    else:
        stored = np.concatenate([crops.data, np.full(crop_plan.PADDING, 0x5A, np.uint8)])
    return Prepared(stored, plans, level_boxes, codes, counts, crop_plan.lay_out_scratch(plans, r)[0], r)


def by_gpu(
    crops: Crops, loaded: ctypes.CDLL, packed: bool = True, kind: int = UINT8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same from the host build of the kernels; half and bfloat16 as uint16."""
    prepared = prepare(crops, packed)
    shape = (len(crops), crops.resolution, crops.resolution, 3)
    images = np.zeros(shape, np.uint8 if kind == UINT8 else np.uint16)
    scratch = np.full(prepared.scratch_size // 16 + 1, np.nan, np.complex128)  # aligned to 16 bytes
    batch = Batch(num=len(crops), resolution=crops.resolution, kind=kind)
    batch.normalize()
    arrays = (prepared.stored, prepared.plans, prepared.level_boxes, scratch, images, prepared.codes)
    for name, array in zip(("bytes", "crops", "boxes", "scratch", "out", "codes"), arrays, strict=True):
        setattr(batch, name, array.ctypes.data)
    for launch in prepared.launches():
        host_build.run(loaded, launch, batch)
    return images, prepared.codes, prepared.counts


def gray_record(height: int, width: int) -> tuple[bytes, bytes]:
    """A gray JPEG of libjpeg with a restart marker after each block, and its record of one level."""
    buffer = io.BytesIO()
    gray = Image.fromarray(photo(height, width)).convert("L")
    gray.save(buffer, "JPEG", quality=90, restart_marker_blocks=1, optimize=True)
    return buffer.getvalue(), layout.pack([index_jpeg(buffer.getvalue())])


@cache
def records() -> tuple[tuple[bytes, bytes, int, int], ...]:
    """Image field, `roc` field, height and width: all samplings, gray, odd and tiny sizes, one and two levels."""
    made = []
    for number, subsampling in enumerate(("4:2:0", "4:2:2", "4:4:4")):
        for k, (height, width) in enumerate(SIZES):
            options = {"num_levels": 2, "min_short_side": 1} if (k + number) % 3 else {"num_levels": 1}
            quality = RocQuality(subsampling=subsampling, quality=(90, 40, 97, 7)[(k + number) % 4], **options)
            made.append((*encode(photo(height, width), quality), height, width))
    for height, width in ((200, 300), (33, 17), (8, 8)):
        made.append((*gray_record(height, width), height, width))
    return tuple(made)


@cache
def record_file() -> tuple[np.ndarray, np.ndarray]:
    """All records in one array of bytes, and their table."""
    parts, table, at = [], [], 0
    for image, record, height, width in records():
        table.append((at, len(image), at + len(image), len(record), height, width))
        parts += [image, record]
        at += len(image) + len(record)
    return np.frombuffer(b"".join(parts), np.uint8), np.array(table, np.int64)


def random_boxes(table: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """float64 (n, 4): whole pixels or fractions of them, any size from a fraction of a pixel on."""
    sizes = table[:, layout.IMAGE_HEIGHT :].astype(float)
    lengths = np.maximum(random.random(sizes.shape), 1e-3) * sizes
    whole = random.random((len(table), 1)) < 0.5
    lengths = np.where(whole, np.ceil(lengths), lengths)
    starts = random.random(sizes.shape) * (sizes - lengths)
    return np.concatenate([np.where(whole, np.floor(starts), starts), lengths], axis=1)


def random_crops(num: int, resolution: int, seed: int) -> Crops:
    """Crops of `record_file` with boxes, flips, filters and quality settings at random; half of them training crops."""
    random = np.random.default_rng(seed)
    data, table = record_file()
    table = table[random.integers(0, len(table), num)]
    zoom = (0.8, 0.3, float("inf"))[seed % 3]
    flips, bicubic = random.random((2, num)) < 0.5
    return Crops(data, table, random_boxes(table, random), flips, bicubic, resolution, seed % 2 == 0, zoom)
