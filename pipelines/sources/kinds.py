"""The kinds of stored images, recognized by names and layout. No image is opened."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fixres.pipelines.sources.imagenet.flat import has_val_images
from fixres.pipelines.sources.imagenet.ilsvrc import ARCHIVES, archive_split
from fixres.pipelines.sources.imagenet.imagenet_v2 import is_imagenet_v2
from fixres.pipelines.sources.imagenet.kaggle import kaggle_root
from fixres.pipelines.sources.layout import disk_splits, find_splits
from fixres.pipelines.sources.tar_folder import holds_class_folders
from fixres.pipelines.sources.tree import DiskFolder, images_in
from fixres.pipelines.spec import InputError

KINDS = {
    "folder": "class folders, or train/ and val/ with class folders",
    "imagenet_v2": "class folders named by ImageNet's class numbers",
    "ilsvrc": "the archives of ILSVRC2012",
    "flat": "ILSVRC2012's val images, unpacked",
    "kaggle": "Kaggle's layout",
    "parquet": "parquet shards",
    "webdataset": ".tar shards",
    "tar": "a .tar of class folders",
    "beton": ".beton files",
}
"""Kinds that `open_source` takes, with a short description."""


def recognize(path: Path) -> str:
    """The kind of the data at an existing `path`; a folder without any images is "folder", too.

    Raises:
        InputError: the path looks like two kinds.
    """
    if path.is_file():
        return _kind_of_file(path)
    found = [kind for kind, matches in _MATCHES.items() if matches(path)]
    if len(found) > 1:
        kinds = " and ".join(f"{kind} ({KINDS[kind]})" for kind in found)
        raise InputError(
            f"{path} holds {kinds}; give the folder of one of them, or choose one with fixres convert --source-kind"
        )
    return found[0] if found else "folder"


def _kind_of_file(path: Path) -> str:
    if path.suffix == ".parquet":
        return "parquet"
    if path.suffix != ".tar":
        return "beton"
    if archive_split(path) is not None:
        return "ilsvrc"
    if holds_class_folders(path):
        return "tar"
    raise InputError(f"{path} is one shard; give the folder that contains it")


def _is_folder(path: Path) -> bool:
    """Class folders with images, or splits with class folders."""
    if is_imagenet_v2(path) or kaggle_root(path) is not None:
        return False
    folder = DiskFolder(path)
    return bool(find_splits(folder)) or any(images_in(folder.inside(name)) for name in folder.folders())


def _has_shards(path: Path) -> bool:
    # The other archives of ILSVRC2012 (test, t3) are in the same folder and are not shards. Neither are class tars
    # beside the folders that they were unpacked to.
    return any(
        not file.name.startswith("ILSVRC2012_") and not file.with_suffix("").is_dir()
        for file in _files_here_or_in_splits(path, ".tar")
    )


def _files_here_or_in_splits(path: Path, ending: str) -> Iterator[Path]:
    for folder in (path, *disk_splits(path).values()):
        yield from (folder / name for name in DiskFolder(folder).files() if name.endswith(ending))


_MATCHES = {
    "ilsvrc": lambda path: any((path / name).is_file() for name in ARCHIVES.values()),
    "flat": has_val_images,
    "kaggle": lambda path: kaggle_root(path) is not None,
    "parquet": lambda path: any(_files_here_or_in_splits(path, ".parquet")) or any((path / "data").glob("*.parquet")),
    "webdataset": _has_shards,
    "beton": lambda path: any(name.endswith(".beton") for name in DiskFolder(path).files()),
    "imagenet_v2": is_imagenet_v2,
    "folder": _is_folder,
}
