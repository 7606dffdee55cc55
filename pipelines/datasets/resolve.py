"""From what a person names as data to two splits of the same classes: found, drawn, downloaded, or split here."""

from __future__ import annotations

import errno
import json
import os
import shutil
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from pipelines.datasets.conversion_cache import short_digest
from pipelines.datasets.split import split_folder
from pipelines.formats.beton_reader import BetonReader
from pipelines.runtime.atomic_files import atomic_folder
from pipelines.sources.folder import FolderSource
from pipelines.sources.scenes.scene import SceneConfig
from pipelines.sources.scenes.write import RECORD_NAME, is_complete, scenes_record, write_scenes
from pipelines.spec import InputError

_MADE_HERE = ("scenes", "imagenette")


class DataFolders(NamedTuple):
    """Two ImageFolders, or two .beton files, of the same classes.

    Attributes:
        train: class folders of training images, or train.beton.
        val: class folders of test images, or val.beton.
        classes: names in label order.
    """

    train: Path
    val: Path
    classes: tuple[str, ...]


def find_data(path: str, work_dir: Path, seed: int = 0) -> DataFolders:
    """The training and test folders of `path`, made first if need be. The data's own folder is never written to.

    Args:
        path: "scenes" (drawn here), "imagenette" (downloaded), a folder with train/ and val/, one with train.beton and
            val.beton, or a folder of class folders, which is split here; a folder that bears one of those names is
            given as "./scenes".
        work_dir: where everything made here is kept and found again.
        seed: of what is drawn here: the scenes or the split.
    """
    if path not in _MADE_HERE and _holds_betons(Path(path)):
        return _beton_pair(Path(path))
    if path == "scenes":
        folder = prepare_scenes(SceneConfig(seed=seed), work_dir)
    elif path == "imagenette":
        folder = _download_imagenette(work_dir)
    else:
        folder = _splits_of(Path(path), work_dir, seed)
    return _check_pair(folder / "train", folder / "val")


def prepare_scenes(config: SceneConfig, work_dir: Path) -> Path:
    """Folder of the synthetic scenes of `config` under `work_dir`, drawn unless a whole one is there."""
    record = json.dumps(scenes_record(config), sort_keys=True)
    folder = work_dir / f"scenes-{short_digest(record)}"
    if is_complete(config, folder):
        return folder
    if folder.exists() and not (folder / RECORD_NAME).is_file():
        raise InputError(f"{folder} is in the way of the scenes and was not made by this program; move it")
    # Our own, but files are missing or its record is damaged: it is drawn anew.
    return write_scenes(config, folder, num_workers=len(os.sched_getaffinity(0)), overwrite=True)


def _download_imagenette(work_dir: Path) -> Path:
    """Folder of Imagenette at a short side of 320 pixels (340 MB), downloaded by torchvision."""
    from torchvision.datasets import Imagenette

    name = "imagenette2-320"
    folder = work_dir / name
    if folder.is_dir():
        return folder
    try:
        with atomic_folder(work_dir / name) as partial:
            # torchvision takes a folder for whole as soon as it exists, so it may not unpack under the final name.
            Imagenette(str(partial), split="train", size="320px", download=True)
            for split in ("train", "val"):
                os.rename(partial / name / split, partial / split)
            shutil.rmtree(partial / name)
            (partial / f"{name}.tgz").unlink()
    except InputError:
        raise
    # No network shows as URLError, a cut connection as HTTPException, a damaged archive as RuntimeError or TarError.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise InputError(
            f"imagenette could not be downloaded ({_one_line(error)}); check the network, or unpack imagenette2-320.tgz"
            f" into {work_dir}, or take 'scenes', which needs no download"
        ) from None
    return folder


def _splits_of(root: Path, work_dir: Path, seed: int) -> Path:
    """`root` itself if it holds train/ and val/, else the folder of the split we make of it."""
    if not root.is_dir():
        names = " or ".join(repr(name) for name in _MADE_HERE)
        raise InputError(f"{root} is no folder; give a folder of photographs, or {names}")
    if not any(root.iterdir()):
        raise InputError(f"{root} is empty; it needs train/ and val/, or a subfolder of images for each class")
    if work_dir.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"work_dir={work_dir} lies inside the data {root}; choose a folder outside, nothing is written there"
        )
    train, val = (_holds_class_folders(root / name) for name in ("train", "val"))
    if train and val:
        return root
    if train or val:
        there, missing = ("train", "val") if train else ("val", "train")
        raise InputError(
            f"{root} has {there}/ with class folders but no {missing}/; add {root / missing}, or give {root / there} as"
            " the data to have it split here"
        )
    return split_folder(root, work_dir, seed)


def _holds_class_folders(folder: Path) -> bool:
    """Whether `folder` is a split. One that holds images directly is a class that happens to be called train."""
    return folder.is_dir() and any(child.is_dir() for child in folder.iterdir())


def _holds_betons(root: Path) -> bool:
    """Whether `root` is converted data. Class folders beside the files would leave open which is meant."""
    there = [name for name in ("train", "val") if (root / f"{name}.beton").is_file()]
    if not there:
        return False
    if len(there) == 1:
        missing = root / ("val.beton" if there == ["train"] else "train.beton")
        raise InputError(f"{root} has {there[0]}.beton but no {missing.name}; convert that split to {missing}")
    folders = [name for name in ("train", "val") if (root / name).is_dir()]
    if folders:
        raise InputError(
            f"{root} holds train.beton and val.beton, and {folders[0]}/ too; move one kind to its own folder"
        )
    return True


def _beton_pair(root: Path) -> DataFolders:
    """Both files, whose labels must count in the same list of classes."""
    train, val = root / "train.beton", root / "val.beton"
    classes, others = BetonReader(train).classes, BetonReader(val).classes
    if classes == others:
        return DataFolders(train, val, classes)
    pairs = zip_longest(classes, others, fillvalue="nothing")
    label, one, other = next((label, *pair) for label, pair in enumerate(pairs) if pair[0] != pair[1])
    raise InputError(
        f"label {label} is {one} in {train} but {other} in {val} ({len(classes)} and {len(others)} classes);"
        f" convert val again with --classes-from {train}"
    )


def _check_pair(train: Path, val: Path) -> DataFolders:
    """Both folders scanned: every class has images, and both have the same classes."""
    classes = FolderSource(train).classes
    others = FolderSource(val).classes
    for name in classes:
        if name not in others:
            raise InputError(
                f"class {name} is in {train} but not in {val}; add its test images or remove it from train"
            )
    for name in others:
        if name not in classes:
            raise InputError(
                f"class {name} is in {val} but not in {train}; add its training images or remove it from val"
            )
    return DataFolders(train, val, classes)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
