"""Draws what the network sees: training crops in several epochs, then testing crops, as one engine delivers them.

python tools/show_crops.py /data/imagenet/val crops.png --engine torch --resolution 128
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines import console
from pipelines.arguments import Parser
from pipelines.contact_sheet import contact_sheet, first_crops, save
from pipelines.loaders import ENGINES, open_loader
from pipelines.spec import EvalCrop, InputError, LoaderConfig, TrainCrop


def main() -> None:
    """Parses the command line, draws and saves."""
    parser = Parser(__doc__)
    parser.add_argument("data", type=Path, help="ImageFolder directory, .beton file or folder of .tar shards")
    parser.add_argument("dest", type=Path, help="PNG file to make")
    parser.add_argument("--engine", default="torch", help=f"one of {', '.join(ENGINES)} (%(default)s)")
    parser.add_argument("--resolution", type=int, default=128, help="training crop in pixels (%(default)s)")
    parser.add_argument("--test-resolution", type=int, help="testing crop in pixels (as --resolution)")
    parser.add_argument("--num", type=int, default=8, help="samples (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="rows of training crops (%(default)s)")
    parser.add_argument("--crop-pct", type=float, default=EvalCrop.crop_pct, help="testing crop (%(default)s)")
    parser.add_argument("--scale", type=float, nargs=2, default=TrainCrop.scale, help="area share (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.num < 1 or options.epochs < 0:
        raise InputError(f"--num {options.num} --epochs {options.epochs}: there must be at least one sample")
    save(contact_sheet(draw(options), options.num), options.dest)
    print(options.dest)


def draw(options: argparse.Namespace) -> list:
    """Rows of crops: training once per epoch, then testing."""
    rows, size = [], {"path": options.data, "batch_size": options.num, "seed": options.seed}
    if options.epochs:
        crop = TrainCrop(scale=tuple(options.scale))
        with open_loader(options.engine, LoaderConfig(crop=crop, resolution=options.resolution, **size)) as loader:
            for epoch in range(options.epochs):
                loader.set_epoch(epoch)
                heading = f"{options.engine}, training at {options.resolution} px, epoch {epoch}"
                rows.append((heading, *first_crops(loader, options.num)))
    resolution = options.test_resolution or options.resolution
    with open_loader(
        options.engine, LoaderConfig(crop=EvalCrop(options.crop_pct), resolution=resolution, **size)
    ) as loader:
        heading = f"{options.engine}, testing at {resolution} px, crop_pct {options.crop_pct}"
        rows.append((heading, *first_crops(loader, options.num)))
    return rows


if __name__ == "__main__":
    console.run(main)
