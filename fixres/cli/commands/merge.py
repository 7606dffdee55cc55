"""Joins the parts that `fixres convert --shard i/n` wrote into one file or one folder of shards.

fixres merge train.beton            # joins train-00000-of-00008.beton, ...
fixres merge train.beton PART...    # joins these
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fixres.config.parsing import parse as parse_options
from fixres.pipelines.spec import InputError


@dataclass(frozen=True)
class MergeOptions:
    """Options of a merge."""

    dest: Path = field(metadata={"positional": True})
    """The file or folder to write."""
    parts: list[Path] = field(default_factory=list, metadata={"positional": True})
    """All parts; those beside DEST by default."""
    overwrite: bool = False
    """Replace DEST if it exists."""


def parse(arguments: Sequence[str]) -> MergeOptions:
    """The options of the command line."""
    return parse_options(MergeOptions, arguments, __doc__)


def run(options: MergeOptions) -> None:
    """Merges and prints the result."""
    from fixres.pipelines.conversion.merging import merge, parts_beside

    parts = options.parts or parts_beside(options.dest)
    if not parts:
        raise InputError(
            f"no parts of {options.dest} found beside it; convert them with --shard i/n, or give their paths"
        )
    num_samples = merge(parts, options.dest, options.overwrite)
    print(f"{options.dest}: {num_samples} images from {len(parts)} parts; the parts can be deleted")
