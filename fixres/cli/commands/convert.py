"""Converts images into one .beton file, or webdataset shards, for fast loading.

SOURCE may be an image folder, a tar of one, the official archives of ILSVRC2012 (no need to unpack them), Kaggle's
layout, Hugging Face's parquet shards, webdataset shards, ImageNet-V2, or a .beton file. If the command is interrupted,
the same command continues.

fixres convert imagenet/train train.beton
fixres convert imagenet val.beton --split val --classes-from train.beton
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fixres.config.parsing import parse as parse_options
from fixres.pipelines.spec import Source, one_line

if TYPE_CHECKING:
    from fixres.pipelines.conversion.converter import Conversion
    from fixres.pipelines.conversion.task import ConversionConfig


@dataclass(frozen=True)
class ConvertOptions:
    """Options of a conversion."""

    source: Path = field(metadata={"positional": True})
    """The images: a folder, an archive or a file."""
    dest: Path = field(metadata={"positional": True})
    """The file (roc, ffcv) or folder (webdataset) to write."""
    format: Literal["roc", "ffcv", "webdataset"] = "roc"
    """roc: for engine roc, read by stock FFCV, too; ffcv: for stock FFCV; webdataset: tar shards, for DALI."""
    source_kind: str = "auto"
    """Kind of SOURCE: auto, ilsvrc, folder, flat, kaggle, parquet, webdataset, tar, imagenet_v2 or
    beton."""
    split: Literal["train", "val"] | None = None
    """Which split, if SOURCE has several."""
    val_labels: Path | None = None
    """Labels of validation images that come without."""
    classes_from: Path | None = None
    """Source, .beton file or text file whose class list is used, so that train and val number their classes alike."""
    image_column: str | None = None
    """Column of parquet shards with the images; image by default."""
    label_column: str | None = None
    """Column of parquet shards with the class numbers; label by default."""
    preset: Literal["small", "medium", "large"] = "large"
    """Size and JPEG quality of stored images: small 320 px and 85, medium 400 px and 90, large 500 px and 90."""
    max_side: int | None = None
    """Longest side of a stored image in pixels; larger images are made smaller. The preset's by default."""
    quality: int | None = None
    """JPEG quality of re-encoded images. The preset's by default."""
    exif: Literal["ignore", "apply"] = "ignore"
    """Whether images are turned as their EXIF orientation says."""
    num_workers: int | None = None
    """Worker processes; all cores by default."""
    on_bad: Literal["stop", "skip"] = "stop"
    """A damaged image stops the conversion, or is left out and listed."""
    damaged: Literal["refuse", "accept"] = "refuse"
    """Whether a JPEG with damaged parts is refused, or stored as Pillow shows it."""
    overwrite: bool = False
    """Replace DEST if it exists."""
    restart: bool = False
    """Discard an unfinished DEST instead of continuing it."""
    shard: str = "0/1"
    """Convert part i of n only, as i/n; `fixres merge` joins the parts."""
    verify: bool = False
    """Decode all written images and count the classes."""


def parse(arguments: Sequence[str]) -> ConvertOptions:
    """The options of the command line."""
    return parse_options(ConvertOptions, arguments, __doc__)


def run(options: ConvertOptions) -> None:
    """Converts and prints what was written."""
    from fixres.pipelines.conversion.converter import check_dest, convert
    from fixres.pipelines.conversion.verification import verify_data
    from fixres.pipelines.runtime.atomic_files import keep_outside
    from fixres.pipelines.sources import open_source

    config = _config(options)
    keep_outside(options.source, options.dest)
    check_dest(options.dest, config)
    source = open_source(
        options.source,
        options.source_kind,
        options.split,
        val_labels=options.val_labels,
        classes_from=options.classes_from,
        image_column=options.image_column,
        label_column=options.label_column,
    )
    print(_describe(source))
    done = convert(source, options.dest, config)
    print(_summary(done, config))
    if options.verify:
        print(verify_data(done.dest, options.num_workers))


def _config(options: ConvertOptions) -> ConversionConfig:
    from fixres.pipelines.conversion.presets import PRESETS
    from fixres.pipelines.conversion.task import ConversionConfig
    from fixres.pipelines.formats.parts import Part

    preset = PRESETS[options.preset]
    return ConversionConfig(
        options.format,
        preset.max_side if options.max_side is None else options.max_side,
        preset.quality if options.quality is None else options.quality,
        options.exif,
        Part.parse(options.shard),
        options.on_bad,
        options.num_workers,
        options.overwrite,
        options.restart,
        damaged=options.damaged,
    )


def _summary(done: Conversion, config: ConversionConfig) -> str:
    from fixres.pipelines.runtime.notices import counted

    return (
        f"{done.dest}: {counted(done.num_samples, 'image')}, {_size(done)}, at most {config.max_side} px, "
        f"quality {config.quality}, {done.num_passed} copied unchanged, {len(done.bad_samples)} left out; "
        f"{done.seconds:.1f} s, {max(0, done.num_samples - done.num_kept) / done.seconds:.0f} images/s"
        + (f"; {done.num_kept} were converted before" if done.num_kept else "")
    )


def _size(done: Conversion) -> str:
    """The size of what was written; that on the disk, too, if the file has holes."""
    whole = f"{done.file_bytes / 1e6:.1f} MB"
    if done.disk_bytes > 0.99 * done.file_bytes:
        return whole
    return f"{whole} ({done.disk_bytes / 1e6:.1f} MB on disk, the rest is padding)"


def _describe(source: Source) -> str:
    """Shows the first and the last class, so that wrong class numbers are noticed."""
    from fixres.pipelines.imagenet_classes import class_names_of
    from fixres.pipelines.runtime.notices import counted

    names = class_names_of(source)
    known = [name if name == code else f"{code} ({name})" for code, name in zip(source.classes, names, strict=True)]
    ends = [f"{k} = {known[k]}" for k in (0, len(known) - 1)]
    place = getattr(source, "path", "source")
    sizes = f"{counted(len(source), 'image')} of {counted(len(names), 'class', 'classes')}"
    return one_line(f"{place}: {sizes}, {' to '.join(ends[: len(names)])}")
