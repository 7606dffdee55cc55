"""What smaller stored images cost: bytes of RoC records, and how far crops are from those of the original photographs.

python -m benchmarks.loaders.stored_sizes --data PHOTOS [--num-images 300] [--json FILE]

Every photograph is converted with each pair of a longest side and a JPEG quality. Training crops (RandomResizedCrop at
scale (0.08, 1)) of engine roc are compared with crops of the same parts of the original photographs, decoded and
resized by Pillow.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles, RepeatedSource
from benchmarks.harness.options import WORK_DIR, BenchmarkOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.loaders.tables import stored_sizes_table
from fixres.pipelines.conversion.presets import PRESETS, Preset
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.loaders.pillow import train_crop
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.layout import LEVEL_SHIFT, NUM_COUNTS
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sampling.crops import training_boxes
from fixres.pipelines.spec import MIN_TRAIN_ZOOM, InputError, TrainCrop

PAIRS = (Preset(500, 90), Preset(400, 90), Preset(400, 85), Preset(320, 90), Preset(320, 85))
"""Longest side in pixels and JPEG quality; the presets of `fixres convert` are among them."""


@dataclass(frozen=True, kw_only=True)
class StoredSizesOptions(BenchmarkOptions):
    """Options of the benchmark."""

    data: Path
    """A folder of photographs."""
    num_images: int = 300
    """Photographs, one crop of each at each resolution."""
    train_res: list[int] = field(default_factory=lambda: [128, 160, 224])
    """Sides of the crops in pixels."""
    work_dir: Path = WORK_DIR
    """Folder for converted files, which are kept."""


class References:
    """The original photographs, a box of each, and Pillow's crops of them."""

    def __init__(self, options: StoredSizesOptions) -> None:
        self._source = RepeatedSource(options.data, options.num_images)
        self.num = self._source.num_different
        self.crops = {side: np.empty((self.num, side, side, 3), np.uint8) for side in options.train_res}
        self.sizes, self.boxes = np.empty((self.num, 2), np.int64), np.empty((self.num, 4), np.int64)
        for index in tqdm(range(self.num), desc="original photographs", disable=None):
            pixels = decode_rgb(self._source.read(index), self._source.name(index), index)
            self.sizes[index] = pixels.shape[:2]
            self.boxes[index] = training_boxes(TrainCrop(), 0, 0, np.array([index]), self.sizes[index : index + 1])[0]
            for side, crops in self.crops.items():
                crops[index] = train_crop(pixels, self.boxes[index], side)


def compare(references: References, path: Path, side: int) -> dict[str, Any]:
    """Crops of a RoC file at one resolution against the original photographs'."""
    reader, num = open_beton(path), references.num
    indices = np.arange(num)
    per_pixel = reader.sizes[indices] / references.sizes
    boxes = references.boxes * np.tile(per_pixel, 2)
    crops, codes = np.empty((num, side, side, 3), np.uint8), np.empty(num, np.int64)
    counts, no = np.empty((num, NUM_COUNTS), np.int64), np.zeros(num, bool)
    table = locate_samples(reader, indices)
    decode_samples(reader.data, table, boxes, no, no, True, MIN_TRAIN_ZOOM, crops, codes, counts)
    if codes.any():
        raise InputError(f"{path} has samples that cannot be decoded; convert the photographs again")
    squares = (crops.astype(np.float32) - references.crops[side]) ** 2
    psnr = 10 * np.log10(255**2 / np.maximum(squares.mean(axis=(1, 2, 3)), 1e-6))
    shares = (counts[:, LEVEL_SHIFT] > 0).mean()
    return {"res": side, "mean_psnr": float(psnr.mean()), "psnr_5th_percentile": float(np.percentile(psnr, 5)),
            "coarse_share": float(shares)}  # fmt: skip


def measure(options: StoredSizesOptions) -> dict[str, Any]:
    """Measures all pairs; returns the record."""
    environment, references, results = conditions(options.data), References(options), []
    with Interruption() as interruption:
        for max_side, quality in PAIRS:
            files = BenchmarkFiles(options.data, options.work_dir, references.num, max_side, quality)
            path = files.path("roc")
            crops = [compare(references, path, side) for side in options.train_res]
            size = files.num_bytes("roc") / references.num
            preset = next((name for name, pair in PRESETS.items() if pair == (max_side, quality)), None)
            stored = {"preset": preset, "max_side": max_side, "quality": quality}
            results.append({**stored, "bytes_per_image": size, "crops": crops})
    note = f"{references.num} photographs, one training crop of each; min_zoom {MIN_TRAIN_ZOOM}."
    return record("stored_sizes", options.settings(), environment, note, interruption.happened, results=results)


main = command(StoredSizesOptions, __doc__, measure, stored_sizes_table)


if __name__ == "__main__":
    run(main)
