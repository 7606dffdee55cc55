"""Joins the parts that `convert_imagenet.py --shard i/n` made: one file (or folder of shards), as if made in one go.

python tools/merge_parts.py /data/train.beton          # of /data/train-00000-of-00008.beton and so on
python tools/merge_parts.py /data/train.beton PART...  # of these
"""

from __future__ import annotations

from pathlib import Path

from pipelines.conversion.merging import merge, parts_beside
from pipelines.runtime import exit_codes as console
from pipelines.runtime.cli import Parser
from pipelines.spec import InputError


def main() -> None:
    """Parses the command line and merges."""
    parser = Parser(__doc__)
    parser.add_argument("dest", type=Path, help="file or folder to make")
    parser.add_argument("parts", type=Path, nargs="*", help="all parts (those beside DEST)")
    parser.add_argument("--overwrite", action="store_true", help="replace DEST if it exists")
    options = parser.parse_args()
    parts = options.parts or parts_beside(options.dest)
    if not parts:
        raise InputError(f"no parts of {options.dest} lie beside it; convert them with --shard i/n or name them")
    num_samples = merge(parts, options.dest, options.overwrite)
    print(f"{options.dest}: {num_samples} images from {len(parts)} parts; the parts can go now")


if __name__ == "__main__":
    console.run(main)
