"""Converts images for training: an image folder (or .beton file, or shards) into one .beton file or webdataset shards.

python tools/convert_imagenet.py /data/imagenet/train /data/train.beton --format roc
python tools/convert_imagenet.py /data/imagenet/val /data/val_shards --format webdataset
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines import console
from pipelines.convert import convert
from pipelines.parts import Part
from pipelines.verify import verify_data


def main() -> None:
    """Parses the command line and converts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="ImageFolder directory, .beton file or folder of .tar shards")
    parser.add_argument("dest", type=Path, help="file (roc, ffcv) or folder (webdataset) to make")
    parser.add_argument("--format", choices=("roc", "ffcv", "webdataset"), required=True)
    parser.add_argument("--max-side", type=int, default=500, help="longest stored side in pixels (%(default)s)")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality of re-encoded images (%(default)s)")
    parser.add_argument("--exif", choices=("ignore", "apply"), default="ignore", help="orientation (%(default)s)")
    parser.add_argument("--num-workers", type=int, default=None, help="processes (all cores)")
    parser.add_argument("--on-bad", choices=("stop", "skip"), default="stop", help="damaged images (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace DEST if it exists")
    parser.add_argument("--restart", action="store_true", help="forget an unfinished DEST instead of continuing it")
    parser.add_argument("--shard", help="make part i of n only, as i/n; tools/merge_parts.py joins them")
    parser.add_argument("--verify", action="store_true", help="decode everything that was written, count classes")
    options = vars(parser.parse_args())
    source, dest, verify = options.pop("source"), options.pop("dest"), options.pop("verify")
    shard = options.pop("shard")
    part = Part.parse(shard) if shard else Part()
    done = convert(source, dest, part=part, **options)
    print(
        f"{done.dest}: {done.num_samples} images, {done.bytes_written / 1e6:.1f} MB, {done.num_passed} of them taken"
        f" over as they were, {len(done.bad_samples)} left out; {done.seconds:.1f} s,"
        f" {(done.num_samples - done.num_kept) / done.seconds:.0f} images/s"
        + (f"; {done.num_kept} were there from before" if done.num_kept else "")
    )
    if verify:
        print(verify_data(done.dest, options["num_workers"]))


if __name__ == "__main__":
    console.run(main)
