"""Which file or folder of a data set is meant, and which engine reads it."""

from __future__ import annotations

import os
from pathlib import Path

from fixres.pipelines.datasets.prepared import choose_engine
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.spec import InputError


def split_path(path: Path, train: bool) -> Path:
    """`path` itself, or the wanted split if `path` is a folder that holds both.

    Raises:
        InputError: `path` does not exist, or lacks the wanted split.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; give a .beton file, a folder of images, or a folder of shards")
    wanted, other = ("train", "val") if train else ("val", "train")
    for ending in (".beton", ""):
        if _is_split(path / f"{wanted}{ending}"):
            return path / f"{wanted}{ending}"
        if _is_split(path / f"{other}{ending}"):
            raise InputError(
                f"{path} has {other}{ending} but no {wanted}{ending}; add it, or give {path / other}{ending}"
            )
    return path


def _is_split(path: Path) -> bool:
    """Whether it is a .beton file or holds class folders. A folder with images only is a class that is called train."""
    return path.is_file() or (path.is_dir() and any(child.is_dir() for child in path.iterdir()))


def engine_for(path: Path, engine: str, device: str) -> str:
    """The engine `engine`, or for "auto" the fastest one that reads `path` on `device` ("cpu" or "cuda[:n]")."""
    if engine != "auto":
        return engine
    betons = [path] if path.is_file() else sorted(path.glob("*.beton"))
    if not betons:
        return "torch"
    return choose_engine("auto", device, "roc" in BetonReader(betons[0]).field_names).engine


def workers_for(num_workers: int | None) -> int:
    """`num_workers`, or the number of CPU cores of this process for None."""
    return len(os.sched_getaffinity(0)) if num_workers is None else num_workers
