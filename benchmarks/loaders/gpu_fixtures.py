"""Crops with the pixels that engine `roc` makes of them, as one file for `benchmarks.loaders.gpu_decoder`.

python -m benchmarks.loaders.gpu_fixtures --data FILE.beton|PHOTOS --output FILE.npz

A GPU machine needs neither photographs nor this project's dependencies to check the kernels with it. About 45 MB.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.harness.options import PhotoOptions
from fixres.config.parsing import parse
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.gpu.crop_plan import NUM_PLAN, lay_out_scratch, pack_crops, packed_starts, plan_crops
from fixres.pipelines.roc.layout import NUM_COUNTS
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.runtime.atomic_files import atomic_file
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.spec import MIN_TRAIN_ZOOM, InputError, TrainCrop


@dataclass(frozen=True, kw_only=True)
class GPUFixturesOptions(PhotoOptions):
    """Options of the command."""

    output: Path
    """File to write."""
    train_res: list[int] = field(default_factory=lambda: [128, 160, 224])
    """Sides of the training crops in pixels."""
    num_images: int = 128
    """Crops at each resolution."""


def fixtures(path: Path, num: int, resolutions: list[int]) -> dict[str, np.ndarray]:
    """Training crops of a RoC file, packed for the kernels, with the pixels of engine roc.

    Returns:
        `resolutions`, and for each R of them: `stored_R` uint8, `plans_R` int64 (n, 34), `boxes_R` float64 (n, 4),
        `scratch_R` int64 (), `images_R` uint8 (n, R, R, 3).
    """
    reader = open_beton(path)
    if "roc" not in reader.field_names:
        raise InputError(f"{path} has no RoC records; convert the data with --format roc")
    indices = np.arange(num) % len(reader)
    table, made = locate_samples(reader, indices), {"resolutions": np.array(resolutions)}
    for side in resolutions:
        chosen = crop_boxes(TrainCrop(), 0, side, indices, reader.sizes[indices], side)
        plans, boxes = np.empty((num, NUM_PLAN), np.int64), np.empty((num, 4))
        codes, counts = np.empty(num, np.int64), np.empty((num, NUM_COUNTS), np.int64)
        how = chosen._replace(yxhw=chosen.yxhw.astype(np.float64))
        plan_crops(reader.data, table, *how, side, True, MIN_TRAIN_ZOOM, plans, boxes, codes, counts)
        starts = np.empty(num, np.int64)
        stored = np.zeros(packed_starts(plans, counts, starts), np.uint8)
        pack_crops(reader.data, plans, starts, stored)
        images = np.empty((num, side, side, 3), np.uint8)
        decode_samples(reader.data, table, *how, True, MIN_TRAIN_ZOOM, images, codes, counts)
        if codes.any():
            raise InputError(f"{path} has samples that cannot be decoded; convert the photographs again")
        scratch = np.array(lay_out_scratch(plans, side)[0])
        arrays = {"stored": stored, "plans": plans, "boxes": boxes, "scratch": scratch, "images": images}
        made |= {f"{name}_{side}": array for name, array in arrays.items()}
    return made


def main() -> None:
    """Parses the command line and writes the file."""
    options = parse(GPUFixturesOptions, sys.argv[1:], __doc__)
    path = options.data if options.data.is_file() else options.files().path("roc")
    made = fixtures(path, options.num_images, options.train_res)
    with atomic_file(options.output, overwrite=True) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **made)
    print(f"{options.output}: {options.num_images} crops at {', '.join(map(str, options.train_res))} px")


if __name__ == "__main__":
    run(main)
