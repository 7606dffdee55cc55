"""Draws the crops that an engine delivers: training crops of several epochs, then test crops.

python tools/show_crops.py /data/imagenet/val crops.png --engine torch --resolution 128
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fixres.pipelines.inspection.contact_sheet import check_size, draw_sheet, first_crops, save_png
from fixres.pipelines.loaders import ENGINES, open_loader
from fixres.pipelines.runtime.cli import Parser, output_file
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import EvalCrop, InputError, LoaderConfig, TrainCrop

_COLUMNS = 32  # crops in a row; more crops of a kind continue in the next row


def main() -> None:
    """Parses the command line, draws and saves."""
    parser = Parser(__doc__)
    parser.add_argument("data", type=Path, help="ImageFolder directory, .beton file or folder of .tar shards")
    parser.add_argument("dest", type=output_file, help="PNG file to write")
    parser.add_argument("--engine", default="torch", help=f"one of {', '.join(ENGINES)} (%(default)s)")
    parser.add_argument("--resolution", type=int, default=128, help="training crop in pixels (%(default)s)")
    parser.add_argument("--test-resolution", type=int, help="test crop in pixels (as --resolution)")
    parser.add_argument("--num", type=int, default=8, help="samples (%(default)s)")
    parser.add_argument("--epochs", type=int, default=3, help="rows of training crops (%(default)s)")
    parser.add_argument("--crop-pct", type=float, default=EvalCrop.crop_pct, help="of the test crop (%(default)s)")
    parser.add_argument(
        "--scale",
        type=float,
        nargs=2,
        default=TrainCrop.scale,
        help="area of a training crop, as shares of the image (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.num < 1 or options.epochs < 0:
        raise InputError(f"--num {options.num} --epochs {options.epochs}: there must be at least one sample")
    if options.dest.suffix.lower() != ".png":
        raise InputError(f"DEST {options.dest} must be a .png file")
    if options.test_resolution is None:
        options.test_resolution = options.resolution
    rows = draw(options)
    columns = min(_COLUMNS, *(len(images) for _, images, _ in rows))
    save_png(draw_sheet(rows, columns), options.dest)
    print(options.dest)


def draw(options: argparse.Namespace) -> list:
    """Rows of crops: training once per epoch, then testing."""
    rows, most = [], max(options.resolution, options.test_resolution)
    common = {"path": options.data, "batch_size": min(options.num, _COLUMNS), "seed": options.seed}
    test = LoaderConfig(crop=EvalCrop(options.crop_pct), resolution=options.test_resolution, **common)
    train = LoaderConfig(crop=TrainCrop(scale=tuple(options.scale)), resolution=options.resolution, **common)
    with open_loader(options.engine, train) as loader:
        check_size(min(options.num, loader.num_samples) * (options.epochs + 1), most)
        for epoch in range(options.epochs):
            loader.set_epoch(epoch)
            heading = f"{options.engine}, training at {options.resolution} px, epoch {epoch}"
            rows.append((heading, *first_crops(loader, options.num)))
    with open_loader(options.engine, test) as loader:
        heading = f"{options.engine}, testing at {options.test_resolution} px, crop_pct {options.crop_pct}"
        rows.append((heading, *first_crops(loader, options.num)))
    return rows


if __name__ == "__main__":
    run(main)
