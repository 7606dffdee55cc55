"""Indexes images where they are, so that crops of them are decoded without the rest: no conversion.

DATA may be a folder of images for each class, one with train/ and val/, a folder of webdataset or parquet shards, or a
.beton file with JPEG images. The images stay as they are; the index lies beside them, or in the user's cache folder if
they are read-only. Training writes the index, too; this command does it before. If it is interrupted, the same command
continues.

fixres index imagenet/train
fixres index imagenet/train --coarse
fixres index photos --rewrite-progressive photos-baseline
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fixres.config.parsing import parse as parse_options
from fixres.pipelines.runtime.notices import counted
from fixres.pipelines.spec import InputError

_NUM_NAMED = 10

if TYPE_CHECKING:
    from fixres.pipelines.crop_index.building import Indexed


@dataclass(frozen=True)
class IndexOptions:
    """Options of an index."""

    data: Path = field(metadata={"positional": True})
    """The images."""
    num_workers: int | None = None
    """Threads; all cores by default."""
    overwrite: bool = False
    """Build a new index even if there is one. Its coarse levels are removed, too, and made again with --coarse."""
    coarse: bool = False
    """Also store each image at half its size, for fast training at small resolutions; a fifth of the bytes, or more."""
    shard: str = "0/1"
    """Index part i of n only, as i/n: on several machines at once, each with its part."""
    rewrite_progressive: Path | None = None
    """Folder for baseline copies of progressive and arithmetic-coded files, which have no checkpoints; lossless."""


def parse(arguments: Sequence[str]) -> IndexOptions:
    """The options of the command line."""
    return parse_options(IndexOptions, arguments, __doc__)


def run(options: IndexOptions) -> None:
    """Indexes each split and prints what its index holds."""
    try:
        bad, reports = _index(options)
    except KeyboardInterrupt:
        how = " without --overwrite" if options.overwrite else ""
        raise KeyboardInterrupt(f"interrupted; what is indexed is kept, and the same command{how} continues") from None
    if bad:
        more = f"; and {len(bad) - _NUM_NAMED} more, see {' and '.join(reports)}" if len(bad) > _NUM_NAMED else ""
        raise InputError(f"{counted(len(bad), 'image')} cannot be read: {'; '.join(bad[:_NUM_NAMED])}{more}")


def _index(options: IndexOptions) -> tuple[list[str], list[str]]:
    """Indexes each split; returns a line for each image that cannot be read, and the files with these lines."""
    from fixres.pipelines.conversion.rewriting import check_rewriting, rewrite_progressive
    from fixres.pipelines.crop_index.building import IndexingConfig, build_index, splits_in
    from fixres.pipelines.formats.parts import Part
    from fixres.pipelines.sources import open_source

    config = IndexingConfig(options.num_workers, options.overwrite, Part.parse(options.shard), coarse=options.coarse)
    if options.rewrite_progressive is not None:
        check_rewriting(options.data, options.rewrite_progressive)
    bad: list[str] = []
    reports: list[str] = []
    for path in splits_in(options.data):
        source = open_source(path)
        done = build_index(source, config)
        print(describe(done))
        bad += done.bad_samples
        reports += [str(done.report)] if done.report else []
        if options.rewrite_progressive is not None:
            dest = options.rewrite_progressive / path.relative_to(options.data)
            print(f"{dest}: {rewrite_progressive(source, dest)} files rewritten as baseline JPEG")
    return bad, reports


def describe(done: Indexed) -> str:
    """What an index holds, in one line."""
    whole = sum(done.decoded_whole.values())
    text = f"{done.path}: {done.num_indexed} of {done.num_images} images indexed"
    if done.num_kept:
        text += f", {done.num_kept} were known before"
    if whole:
        reasons = ", ".join(f"{num} {reason}" for reason, num in done.decoded_whole.items())
        text += f"; {whole} ({100 * whole / done.num_images:.1f} %) are decoded whole: {reasons}"
    text += f"; {_bytes(done.index_bytes, done)} of the images"
    if done.num_levels:
        text += f"; {done.num_levels} at half their size, {_bytes(done.coarse_bytes, done)}"
    return f"{text}; {done.seconds:.1f} s"


def _bytes(num: int, done: Indexed) -> str:
    return f"{num / 1e6:.1f} MB, {100 * num / max(1, done.image_bytes):.2f} %"
