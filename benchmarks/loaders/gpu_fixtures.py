"""Crops with the pixels that engine `roc` makes of them, as one file for `benchmarks.loaders.gpu_decoder`.

python -m benchmarks.loaders.gpu_fixtures --data FILE.beton|PHOTOS --output FILE.npz

A GPU machine needs neither photographs nor this project's dependencies to check the kernels with it. About 45 MB.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import simplejpeg

from benchmarks.harness.options import PhotoOptions
from fixres.config.parsing import parse
from fixres.pipelines.crop_index import checkpoints
from fixres.pipelines.crop_index.crops import BODY, BODY_SIZE, HEADERS, NUM_PLACE_COLUMNS, decode_indexed
from fixres.pipelines.crop_index.gpu import plan
from fixres.pipelines.crop_index.store import join
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.gpu.crop_plan import NUM_PLAN, PADDING, lay_out_scratch, pack_crops, packed_starts, plan_crops
from fixres.pipelines.roc.layout import NUM_COUNTS
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.runtime.atomic_files import atomic_file
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.spec import MIN_TRAIN_ZOOM, MIN_ZOOM, InputError, TrainCrop


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


def indexed_fixtures(path: Path, num: int, resolutions: list[int]) -> dict[str, np.ndarray]:
    """Training crops by an index, of the same images as plain JPEG files of several samplings.

    Returns:
        The arrays of `fixtures` with "_indexed" behind the names; without `resolutions`.
    """
    reader, made = open_beton(path), {}
    indices, samplings = np.arange(num) % len(reader), ("420", "444", "422", "440", "411")
    pixels = [decode_rgb(bytes(reader.image_bytes(k)), reader.name(k), k) for k in range(min(num, len(reader)))]
    files = [simplejpeg.encode_jpeg(one, 90, "RGB", samplings[k % len(samplings)]) for k, one in enumerate(pixels)]
    data, spans = join(files)
    samples, words = checkpoints.scan_batch(data, spans)
    words.flags.writeable = False  # as the engine has them; else the kernels are compiled again
    places, header_sizes = np.zeros((len(files), NUM_PLACE_COLUMNS), np.int64), samples[:, checkpoints.HEADER_SIZE]
    places[:, HEADERS], places[:, BODY] = spans[:, 0], spans[:, 0] + header_sizes
    places[:, BODY_SIZE] = spans[:, 1] - header_sizes
    stored = data, places[indices], samples[indices], words
    for side in resolutions:
        chosen = crop_boxes(TrainCrop(), 0, side, indices, reader.sizes[indices], side)
        how = chosen._replace(yxhw=chosen.yxhw.astype(np.float64))
        plans, boxes = np.empty((num, NUM_PLAN), np.int64), np.empty((num, 4))
        codes, counts = np.empty(num, np.int64), np.empty((num, NUM_COUNTS), np.int64)
        size = plan.plan_crops(*stored, *how, side, True, MIN_ZOOM, plans, boxes, codes, counts)
        packed = np.zeros(-(-size // 4), np.uint32)
        used = plan.pack_crops(*stored, plans, codes, counts, packed) + PADDING
        images = np.empty((num, side, side, 3), np.uint8)
        decode_indexed(*stored, *how, True, MIN_ZOOM, images, codes, counts)
        assert not codes.any(), "files of libjpeg-turbo are indexed and decoded"
        scratch = np.array(lay_out_scratch(plans, side)[0])
        arrays = {"stored": packed.view(np.uint8)[:used], "plans": plans, "boxes": boxes, "scratch": scratch}
        made |= {f"{name}_{side}_indexed": array for name, array in (arrays | {"images": images}).items()}
    return made


def main() -> None:
    """Parses the command line and writes the file."""
    options = parse(GPUFixturesOptions, sys.argv[1:], __doc__)
    path = options.data if options.data.is_file() else options.files().path("roc")
    wanted = path, options.num_images, options.train_res
    made = fixtures(*wanted) | indexed_fixtures(*wanted)
    with atomic_file(options.output, overwrite=True) as partial, open(partial, "wb") as file:
        np.savez_compressed(file, **made)
    print(f"{options.output}: {options.num_images} crops at {', '.join(map(str, options.train_res))} px")


if __name__ == "__main__":
    run(main)
