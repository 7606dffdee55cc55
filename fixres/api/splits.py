"""Which file or folder of a data set is meant, how it is cropped, and which engine reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fixres.distributed.process_group import sharded
from fixres.pipelines.datasets.prepared import choose_engine
from fixres.pipelines.formats.samples import is_indexable
from fixres.pipelines.loaders import has_records, open_loader
from fixres.pipelines.sources import open_stored
from fixres.pipelines.sources.hugging_face import HuggingFaceSource, is_dataset, split_of
from fixres.pipelines.sources.layout import splits_with_val, val_folder_beside
from fixres.pipelines.sources.tree import DiskFolder
from fixres.pipelines.spec import (
    Crop,
    EvalCrop,
    InputError,
    Loader,
    LoaderConfig,
    OpenLoader,
    Source,
    TrainCrop,
    TrainInterpolation,
)


def split_path(path: Path, train: bool) -> Path:
    """`path` itself, or the wanted split if `path` is a folder that holds both.

    Raises:
        InputError: `path` does not exist, or lacks the wanted split.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give a .beton file, a folder of images, or a folder of shards")
    if path.is_file() and path.suffix in (".tar", ".parquet"):
        open_stored(path)  # says how to convert it
    wanted, other = ("train", "val") if train else ("val", "train")
    betons = {name: path / f"{name}.beton" for name in (wanted, other) if (path / f"{name}.beton").is_file()}
    splits = betons
    if not betons and path.is_dir():
        splits = {name: folder.path for name, folder in splits_with_val(DiskFolder(path)).items()}
    if splits and wanted not in splits:
        there, ending = next(iter(splits.values())), ".beton" if betons else ""
        raise InputError(f"{path} has {there.name} but no {wanted}{ending}; add it, or give {there}")
    return splits.get(wanted, path)


def chosen_crop(
    train: bool,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    hflip: float,
    crop_pct: float,
    interpolation: TrainInterpolation,
) -> Crop:
    """RandomResizedCrop, or the center crop, of the values that are for it."""
    if train:
        return TrainCrop(scale, ratio, hflip, interpolation)
    if interpolation == "random":
        raise InputError("interpolation='random' is for training; choose bilinear or bicubic for testing")
    return EvalCrop(crop_pct, hflip, interpolation)


def stored_images(given: Any, train: bool) -> Path | Source:
    """What `path` stands for in the calls that take one: a path as `split_path` finds it, or a source.

    Args:
        given: a path, a `datasets.Dataset`, a `DatasetDict`, or any `Source`.
        train: which split.

    Raises:
        InputError: it is none of these, or lacks the split.
    """
    if isinstance(given, str | os.PathLike):
        return split_path(Path(given), train)
    if is_dataset(given):
        return HuggingFaceSource(split_of(given, train))
    if isinstance(given, Source):
        return given
    raise InputError(
        f"path={given!r:.80} must be a path, a datasets.Dataset, or an object with the methods of a Source"
    )


def val_beside(train: Path) -> Path | None:
    """val.beton beside train.beton, or the test images beside the folder of training images, if there are any."""
    if train.is_dir():
        return val_folder_beside(train)
    val = train.with_name(f"val{train.suffix}")
    return val if train.stem == "train" and val.is_file() else None


def open_splits(paths: Mapping[str, Path], engine: str, device: str, num_workers: int | None) -> OpenLoader:
    """A function that opens loaders of the splits in `paths`; each process gets its part of every batch."""

    def opened(split: str, **fields: Any) -> Loader:
        path = paths[split]
        config = LoaderConfig(path=path, num_workers=workers_for(num_workers), device=device, **fields)
        return open_loader(engine_for(path, engine, device), config)

    return sharded(opened)


def engine_for(path: Path | Source, engine: str, device: str) -> str:
    """The engine `engine`, or for "auto" the fastest one that reads `path` on `device` ("cpu" or "cuda[:n]")."""
    if engine != "auto":
        return engine
    if not isinstance(path, Path):
        return "roc" if is_indexable(path) else "torch"
    return choose_engine("auto", device, has_records(path)).engine


def workers_for(num_workers: int | None) -> int:
    """`num_workers`, or the number of CPU cores of this process for None."""
    return len(os.sched_getaffinity(0)) if num_workers is None else num_workers
