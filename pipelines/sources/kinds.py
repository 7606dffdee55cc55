"""The kinds of stored images, recognized by names and layout. No image is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fixres.pipelines.sources.folder import IMAGE_ENDINGS, is_folder
from fixres.pipelines.sources.imagenet.flat import has_val_images
from fixres.pipelines.sources.imagenet.ilsvrc import ARCHIVES, archive_split
from fixres.pipelines.sources.imagenet.imagenet_v2 import is_imagenet_v2
from fixres.pipelines.sources.imagenet.kaggle import kaggle_root
from fixres.pipelines.sources.splits import SPLIT_WORDS
from fixres.pipelines.spec import InputError

KINDS = {
    "folder": "class folders, or train/ and val/ with class folders",
    "imagenet_v2": "class folders named by ImageNet's class numbers",
    "ilsvrc": "the archives of ILSVRC2012",
    "flat": "ILSVRC2012's val images, unpacked",
    "kaggle": "Kaggle's layout",
    "parquet": "parquet shards",
    "webdataset": ".tar shards",
    "beton": ".beton files",
}
"""Kinds that `open_source` takes, with a short description."""


def recognize(path: Path) -> str:
    """The kind of the data at an existing `path`.

    Raises:
        InputError: the path looks like two kinds.
    """
    if path.is_file():
        return _kind_of_file(path)
    found = [kind for kind, matches in _MATCHES.items() if matches(path)]
    if len(found) > 1:
        kinds = " and ".join(f"{kind} ({KINDS[kind]})" for kind in found)
        raise InputError(f"{path} holds {kinds}; choose one with --source-kind, or give the folder of one of them")
    return found[0] if found else "folder"


def _kind_of_file(path: Path) -> str:
    if path.suffix == ".parquet":
        return "parquet"
    if path.suffix != ".tar":
        return "beton"
    if archive_split(path) is None:
        raise InputError(f"{path} is one shard; give the folder that contains it")
    return "ilsvrc"


def _is_folder(path: Path) -> bool:
    """Class folders with images, or a split with class folders."""
    if is_imagenet_v2(path):
        return False
    for folder in _folders(path):
        if folder.name in SPLIT_WORDS and any(_folders(folder)):
            return True
        if any(file.name.lower().endswith(IMAGE_ENDINGS) for file in os.scandir(folder)):
            return True
    return False


def _has_shards(path: Path) -> bool:
    # The other archives of ILSVRC2012 (test, t3) are in the same folder and are not shards.
    return any(not file.name.startswith("ILSVRC2012_") for file in _files_here_or_in_splits(path, "*.tar"))


def _files_here_or_in_splits(path: Path, pattern: str) -> Iterator[Path]:
    yield from path.glob(pattern)
    for name in SPLIT_WORDS:
        yield from (path / name).glob(pattern)


def _folders(path: Path) -> Iterator[Path]:
    return (Path(entry.path) for entry in os.scandir(path) if is_folder(entry))


_MATCHES = {
    "ilsvrc": lambda path: any((path / name).is_file() for name in ARCHIVES.values()),
    "flat": has_val_images,
    "kaggle": lambda path: kaggle_root(path) is not None,
    "parquet": lambda path: any(_files_here_or_in_splits(path, "*.parquet")) or any((path / "data").glob("*.parquet")),
    "webdataset": _has_shards,
    "beton": lambda path: any(path.glob("*.beton")),
    "imagenet_v2": is_imagenet_v2,
    "folder": _is_folder,
}
