"""Converts images for training: an image folder (or .beton file, or shards) into one .beton file or webdataset shards.

python tools/convert_imagenet.py /data/imagenet/train /data/train.beton --format roc
python tools/convert_imagenet.py /data/imagenet/val /data/val_shards --format webdataset
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines import console
from pipelines.convert import convert


def main() -> None:
    """Parses the command line and converts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="ImageFolder directory, .beton file or folder of .tar shards")
    parser.add_argument("dest", type=Path, help="file (roc, ffcv) or folder (webdataset) to make")
    parser.add_argument("--format", choices=("roc", "ffcv", "webdataset"), required=True)
    parser.add_argument("--max-side", type=int, default=500, help="longest stored side in pixels (%(default)s)")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality of re-encoded images (%(default)s)")
    parser.add_argument("--num-workers", type=int, default=None, help="processes (all cores)")
    parser.add_argument("--on-bad", choices=("stop", "skip"), default="stop", help="damaged images (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace DEST if it exists")
    options = vars(parser.parse_args())
    source, dest = options.pop("source"), options.pop("dest")
    done = convert(source, dest, **options)
    print(
        f"{dest}: {done.num_samples} images, {done.bytes_written / 1e6:.1f} MB, {done.num_passed} of them taken over"
        f" as they were, {len(done.bad_samples)} left out; {done.seconds:.1f} s,"
        f" {done.num_samples / done.seconds:.0f} images/s"
    )


if __name__ == "__main__":
    console.run(main)
