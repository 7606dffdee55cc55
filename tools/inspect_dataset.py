"""Prints facts about a data set: classes, sizes, bytes, RoC levels. With --out it also draws some images.

python tools/inspect_dataset.py /data/train.beton --out train.png
python tools/inspect_dataset.py /data/imagenet/train --json
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from fixres.pipelines.inspection.contact_sheet import check_size, draw_sheet, save_png, stored_images
from fixres.pipelines.inspection.facts import inspect_source
from fixres.pipelines.inspection.text import as_text
from fixres.pipelines.runtime.cli import Parser, output_file
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import MAX_RESOLUTION, InputError, Source, one_line

_COLUMNS = 8


def main() -> None:
    """Parses the command line, prints and draws."""
    parser = Parser(__doc__)
    parser.add_argument("data", type=Path, help="ImageFolder directory, .beton file or folder of .tar shards")
    parser.add_argument("--out", type=output_file, help="PNG file to write, with random images and their classes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--num", type=int, default=32, help="images to draw (%(default)s)")
    parser.add_argument("--side", type=int, default=128, help="pixels of a drawn image (%(default)s)")
    parser.add_argument(
        "--sample", type=int, default=2000, help="images to look at if no table has all sizes (%(default)s)"
    )
    options = parser.parse_args()
    if options.out is not None and options.out.suffix.lower() != ".png":
        raise InputError(f"--out {options.out} must be a .png file")
    if options.num < 1 or not 16 <= options.side <= MAX_RESOLUTION:
        raise InputError(
            f"--num {options.num} --side {options.side}: draw at least one image, of 16 to {MAX_RESOLUTION} pixels"
        )
    # Class names may hold bytes that are not UTF-8.
    sys.stdout.reconfigure(errors="backslashreplace")
    source = open_source(options.data)
    facts = inspect_source(source, options.data, options.sample)
    print(json.dumps(asdict(facts), indent=1) if options.json else as_text(facts))
    bad = [*facts.bad_samples, *(draw(source, options) if options.out else ())]
    if bad:
        raise InputError(f"{len(bad)} of the samples looked at cannot be used, the first is {bad[0]}")


def draw(source: Source, options: argparse.Namespace) -> list[str]:
    """Writes the picture; returns a line for each image that cannot be decoded."""
    check_size(min(options.num, len(source)), options.side)
    images, captions, bad = stored_images(source, options.num, options.side)
    heading = one_line(f"{options.data}: {len(images)} of {len(source)} images")
    save_png(draw_sheet([(heading, images, captions)], _COLUMNS), options.out)
    return bad


if __name__ == "__main__":
    run(main)
