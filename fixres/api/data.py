"""`fixres.convert`, `fixres.index`, `fixres.inspect`, `fixres.advise`: stored images, before any network sees them."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from fixres.api.calls import checked
from fixres.pipelines.conversion.converter import Conversion
from fixres.pipelines.conversion.converter import convert as convert_source
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.crop_index.building import Indexed, IndexingConfig, build_index
from fixres.pipelines.inspection.facts import Inspection, inspect_source
from fixres.pipelines.inspection.image_headers import image_sizes
from fixres.pipelines.runtime.atomic_files import keep_outside
from fixres.pipelines.sources import open_source
from fixres.pipelines.sources.hugging_face import HuggingFaceSource, is_dataset
from fixres.pipelines.spec import EvalCrop, InputError, TrainCrop
from fixres.resolution.advice import Advice
from fixres.resolution.advice import advise as advise_for_sizes


@checked
def convert(
    source: str | os.PathLike[str] | Any,
    dest: str | os.PathLike[str],
    format: Literal["roc", "ffcv", "webdataset"] = "roc",
    *,
    split: str | None = None,
    classes_from: str | os.PathLike[str] | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    **options: Any,
) -> Conversion:
    """Converts stored images into one file (or folder of shards) for fast loading.

    An interrupted conversion continues where it stopped; `dest` appears only when it is complete and verified.

    Args:
        source: a folder of images for each class, the archives of ILSVRC2012, Kaggle's layout, parquet or webdataset
            shards, a .tar of class folders, ImageNet-V2, a .beton file, or a `datasets.Dataset` (Hugging Face).
        dest: file to write ("roc", "ffcv") or folder ("webdataset").
        format: "roc" (for engines `roc` and `roc-dali`; stock FFCV reads it, too), "ffcv" or "webdataset".
        split: which split of a source that holds several: "train" or "val".
        classes_from: source, .beton file or text file whose class list is used, so that train and val number their
            classes alike.
        image_column: column of parquet shards or of a `Dataset` with the images, "image" by default.
        label_column: column of parquet shards or of a `Dataset` with the class numbers, "label" by default.
        **options: fields of `ConversionConfig`: `max_side` (longest stored side in pixels, 500), `quality` (JPEG
            quality of encoded images, 90), `exif` ("ignore" or "apply"), `num_workers` (all cores), `on_bad` ("stop" or
            "skip"), `damaged` ("refuse" or "accept"), `overwrite`, `restart`, `progress`.

    Returns:
        Counts, bytes, seconds and bad samples.

    Raises:
        InputError: a source that cannot be read, a bad image, an existing destination, or a wrong option.

    Example:
        >>> fixres.convert("imagenet/train", "train.beton")
    """
    known = [field.name for field in fields(ConversionConfig)]
    for name in options:
        if name not in known:
            raise InputError(f"{name} is not an option of a conversion; choose from {', '.join(known[1:])}")
    config = ConversionConfig(format, **options)  # before the source is scanned
    if is_dataset(source):
        if split or classes_from:
            raise InputError("a datasets.Dataset has one split and its own classes; leave out split and classes_from")
        return convert_source(HuggingFaceSource(source, image_column, label_column), Path(dest), config)
    keep_outside(Path(source), Path(dest))
    classes = None if classes_from is None else Path(classes_from)
    opened = open_source(
        Path(source), split=split, classes_from=classes, image_column=image_column, label_column=label_column
    )
    return convert_source(opened, Path(dest), config)


@checked
def index(
    path: str | os.PathLike[str] | Any,
    *,
    num_workers: int | None = None,
    overwrite: bool = False,
    coarse: bool = False,
    progress: bool = True,
) -> Indexed:
    """Indexes stored images where they are, so that crops of them are decoded without the rest of the images.

    The images stay as they are. Training writes the index in its first epoch, too; this does it before. An interrupted
    call is continued by the next one.

    Args:
        path: a folder of images for each class, a folder of webdataset or parquet shards, a .beton file with JPEG
            images, or a `datasets.Dataset` (Hugging Face).
        num_workers: threads; the number of CPU cores by default.
        overwrite: build a new index even if there is one.
        coarse: also store each image at half its size, for crops that need no more: training at 128 pixels is then
            about as fast as from RoC files. It takes about a fifth of the images' bytes, more
            if they are small.
        progress: show a bar.

    Returns:
        Counts, bytes, seconds, and why images are decoded whole.

    Raises:
        InputError: a path that cannot be read, or a damaged index without `overwrite`.

    Example:
        >>> fixres.index("imagenet/train")
        >>> loader = fixres.Loader("imagenet/train", resolution=128, batch_size=256)
    """
    config = IndexingConfig(num_workers, overwrite, coarse=coarse, progress=progress)
    return build_index(HuggingFaceSource(path) if is_dataset(path) else open_source(Path(path)), config)


@checked
def inspect(path: str | os.PathLike[str], num_looked_at: int = 2000) -> Inspection:
    """Counts classes, sizes, bytes and RoC levels of stored images without decoding any.

    Args:
        path: as for `convert`.
        num_looked_at: images whose headers are read where no table has the sizes.

    Raises:
        InputError: a path that cannot be read.

    Example:
        >>> fixres.inspect("train.beton").classes.names
    """
    return inspect_source(open_source(Path(path)), Path(path), num_looked_at)


@checked
def advise(
    data: str | os.PathLike[str],
    train_resolution: int,
    *,
    scale: tuple[float, float] = TrainCrop.scale,
    ratio: tuple[float, float] = TrainCrop.ratio,
    crop_pct: float = EvalCrop.crop_pct,
    stride: int = 32,
    num_looked_at: int = 2000,
) -> Advice:
    """The test resolution at which objects look as large as in training (arXiv 1906.06423, section 3.1).

    Args:
        data: training images, as for `convert`.
        train_resolution: pixels; with a progressive schedule, the last one.
        scale: range of the training crop's area as a share of the image's area.
        ratio: range of the training crop's width over height.
        crop_pct: side of the center crop over the resized short side in testing.
        stride: advised resolutions are multiples of it; the network's stride, in pixels.
        num_looked_at: images whose headers are read where no table has the sizes.

    Returns:
        The advised resolution (`advised.test_res`), its neighbor, and the expected ratios of apparent sizes.

    Raises:
        InputError: data that cannot be read, or a value out of range.
    """
    source = open_source(Path(data))
    looked_at = image_sizes(source, num_looked_at)
    if looked_at.bad_samples:
        raise InputError(f"{len(looked_at.bad_samples)} images cannot be read, the first is {looked_at.bad_samples[0]}")
    crops = TrainCrop(tuple(scale), tuple(ratio)), EvalCrop(crop_pct)
    return advise_for_sizes(train_resolution, *crops, looked_at.sizes, stride, len(source))
