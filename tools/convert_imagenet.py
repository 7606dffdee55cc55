"""Converts images into one .beton file or webdataset shards for training.

SOURCE may be an image folder, the official archives of ILSVRC2012 (no need to unpack them), Kaggle's layout, Hugging
Face's parquet shards, webdataset shards, ImageNet-V2, or a .beton file; see docs/data.md. If the command is
interrupted, the same command continues.

python tools/convert_imagenet.py /data/imagenet roc/train.beton --format roc --split train
python tools/convert_imagenet.py /data/imagenet roc/val.beton --format roc --split val --classes-from roc/train.beton
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.conversion.verification import verify_data
from fixres.pipelines.formats.parts import Part
from fixres.pipelines.imagenet_classes import class_names_of
from fixres.pipelines.runtime.cli import Parser
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sources import KINDS, SPLITS, open_source
from fixres.pipelines.spec import Source


def main() -> None:
    """Converts what the command line names."""
    options = _parse()
    config = ConversionConfig(
        options.format, options.max_side, options.quality, options.exif, Part.parse(options.shard), options.on_bad,
        options.num_workers, options.overwrite, options.restart,
    )  # fmt: skip
    source = open_source(
        options.source,
        options.source_kind,
        options.split,
        val_labels=options.val_labels,
        classes_from=options.classes_from,
    )
    print(_describe(source))
    done = convert(source, options.dest, config)
    print(
        f"{done.dest}: {done.num_samples} images, {done.bytes_written / 1e6:.1f} MB, {done.num_passed} copied"
        f" unchanged, {len(done.bad_samples)} left out; {done.seconds:.1f} s,"
        f" {(done.num_samples - done.num_kept) / done.seconds:.0f} images/s"
        + (f"; {done.num_kept} were converted before" if done.num_kept else "")
    )
    if options.verify:
        print(verify_data(done.dest, options.num_workers))


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("source", type=Path, help="the images: a folder, an archive or a file")
    parser.add_argument("dest", type=Path, help="the file (roc, ffcv) or folder (webdataset) to write")
    parser.add_argument("--format", choices=("roc", "ffcv", "webdataset"), required=True)
    parser.add_argument("--source-kind", choices=("auto", *KINDS), default="auto", help="kind of SOURCE (%(default)s)")
    parser.add_argument("--split", choices=SPLITS, default=None, help="which split, if SOURCE has several")
    parser.add_argument("--val-labels", type=Path, default=None, help="labels of validation images that come without")
    parser.add_argument(
        "--classes-from", type=Path, default=None, help="source, .beton or text file with the class list"
    )
    parser.add_argument("--max-side", type=int, default=500, help="longest stored side in pixels (%(default)s)")
    parser.add_argument("--quality", type=int, default=90, help="JPEG quality of re-encoded images (%(default)s)")
    parser.add_argument("--exif", choices=("ignore", "apply"), default="ignore", help="orientation (%(default)s)")
    parser.add_argument("--num-workers", type=int, default=None, help="processes (all cores)")
    parser.add_argument("--on-bad", choices=("stop", "skip"), default="stop", help="damaged images (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace DEST if it exists")
    parser.add_argument("--restart", action="store_true", help="discard an unfinished DEST instead of continuing it")
    parser.add_argument(
        "--shard", default="0/1", help="convert part i of n only, as i/n (tools/merge_parts.py joins them)"
    )
    parser.add_argument("--verify", action="store_true", help="decode all written images and count the classes")
    return parser.parse_args()


def _describe(source: Source) -> str:
    """Shows the first and the last class, so that wrong class numbers are noticed."""
    names = class_names_of(source)
    known = [name if name == code else f"{code} ({name})" for code, name in zip(source.classes, names, strict=True)]
    ends = [f"{k} = {known[k]}" for k in (0, len(known) - 1)]
    return f"{len(source)} images of {len(names)} classes, {' to '.join(ends)}"


if __name__ == "__main__":
    run(main)
