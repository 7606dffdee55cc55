"""Merges the parts that `convert_imagenet.py --shard i/n` wrote into one file or one folder of shards.

python tools/merge_parts.py /data/train.beton          # merges /data/train-00000-of-00008.beton, ...
python tools/merge_parts.py /data/train.beton PART...  # merges these
"""

from __future__ import annotations

from pathlib import Path

from fixres.pipelines.conversion.merging import merge, parts_beside
from fixres.pipelines.runtime.cli import Parser
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError


def main() -> None:
    """Merges the parts that the command line names."""
    parser = Parser(__doc__)
    parser.add_argument("dest", type=Path, help="the file or folder to write")
    parser.add_argument("parts", type=Path, nargs="*", help="all parts (default: those beside DEST)")
    parser.add_argument("--overwrite", action="store_true", help="replace DEST if it exists")
    options = parser.parse_args()
    parts = options.parts or parts_beside(options.dest)
    if not parts:
        raise InputError(
            f"no parts of {options.dest} found beside it; convert them with --shard i/n, or give their paths"
        )
    num_samples = merge(parts, options.dest, options.overwrite)
    print(f"{options.dest}: {num_samples} images from {len(parts)} parts; the parts can be deleted")


if __name__ == "__main__":
    run(main)
