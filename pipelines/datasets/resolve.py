"""Resolves the user's `data.path` to two splits of the same classes: finds, generates, downloads or splits them."""

from __future__ import annotations

import errno
import json
import os
import shutil
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from fixres.pipelines.datasets.fingerprints import short_digest
from fixres.pipelines.datasets.split import split_folder
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.runtime.atomic_files import atomic_folder
from fixres.pipelines.runtime.notices import counted, notice
from fixres.pipelines.sources import open_folder
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.sources.layout import splits_with_val
from fixres.pipelines.sources.scenes.scene import SceneConfig
from fixres.pipelines.sources.scenes.write import RECORD_NAME, is_complete, scenes_record, write_scenes
from fixres.pipelines.sources.tree import DiskFolder, images_in
from fixres.pipelines.spec import GENERATED, InputError

_IMAGENETTE = "imagenette2-320"


class DataFolders(NamedTuple):
    """Two ImageFolders, or two .beton files, of the same classes."""

    train: Path  # class folders of training images, or train.beton
    val: Path  # class folders of test images, or val.beton
    classes: tuple[str, ...]  # names in label order


def resolve_data(path: str | None, work_dir: Path, seed: int = 0) -> DataFolders:
    """The train and val splits of `path`, generated if necessary. Nothing is written into the data's own folder.

    Args:
        path: "scenes" (generated), "imagenette" (downloaded), a folder with train/ and val/, one with train.beton and
            val.beton, one of these two files, or a folder of class folders, which is split. A folder named scenes is
            given as "./scenes".
        work_dir: keeps generated data for the next run.
        seed: of the scenes or the split.
    """
    if path is None:
        raise InputError("no data is named; give --data FOLDER (photographs or converted data), or --data scenes")
    if path.endswith(".beton") and Path(path).is_file():
        return _check_classes(*_beside(Path(path)))
    if path not in GENERATED and _holds_betons(Path(path)):
        return _check_classes(Path(path) / "train.beton", Path(path) / "val.beton")
    if path == "scenes":
        folder = prepare_scenes(SceneConfig(seed=seed), work_dir)
    elif path == "imagenette":
        folder = _download_imagenette(work_dir)
    else:
        return _check_pair(*_splits_of(Path(path), work_dir, seed))
    return _check_pair(folder / "train", folder / "val")


def is_converted(path: str) -> bool:
    """Whether `path` is one .beton file, or a folder with two, so that nothing needs to be written."""
    return (path.endswith(".beton") and Path(path).is_file()) or (Path(path) / "train.beton").is_file()


def is_made(path: str, work_dir: Path, seed: int) -> bool:
    """Whether the data that `path` names ("scenes", "imagenette") is in `work_dir` already."""
    if path == "imagenette":
        return (work_dir / _IMAGENETTE).is_dir()
    config = SceneConfig(seed=seed)
    return is_complete(config, _scenes_folder(config, work_dir))


def prepare_scenes(config: SceneConfig, work_dir: Path) -> Path:
    """The folder of the synthetic scenes of `config` in `work_dir`, drawn unless it is complete."""
    folder = _scenes_folder(config, work_dir)
    if is_complete(config, folder):
        return folder
    if folder.exists() and not (folder / RECORD_NAME).is_file():
        raise InputError(f"{folder} blocks the folder of the scenes and was not made by this program; move it")
    # It is ours, but files are missing or its record is damaged: draw it again.
    return write_scenes(config, folder, num_workers=len(os.sched_getaffinity(0)), overwrite=True)


def _scenes_folder(config: SceneConfig, work_dir: Path) -> Path:
    return work_dir / f"scenes-{short_digest(json.dumps(scenes_record(config), sort_keys=True))}"


def _download_imagenette(work_dir: Path) -> Path:
    """Folder of Imagenette at a short side of 320 pixels (340 MB), downloaded by torchvision."""
    from torchvision.datasets import Imagenette

    name = _IMAGENETTE
    folder = work_dir / name
    if folder.is_dir():
        return folder
    try:
        with atomic_folder(work_dir / name) as partial:
            # torchvision takes any existing folder for complete, so it must not unpack under the final name.
            Imagenette(str(partial), split="train", size="320px", download=True)
            for split in ("train", "val"):
                os.rename(partial / name / split, partial / split)
            shutil.rmtree(partial / name)
            (partial / f"{name}.tgz").unlink()
    except InputError:
        raise
    # Without a network torchvision raises URLError, for a broken connection HTTPException, for a damaged archive
    # RuntimeError or TarError.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise InputError(
            f"imagenette could not be downloaded ({_one_line(error)}); check the network, or unpack imagenette2-320.tgz"
            f" into {work_dir}, or use 'scenes', which needs no download"
        ) from None
    return folder


def _splits_of(root: Path, work_dir: Path, seed: int) -> tuple[Path, Path]:
    """The folders of the splits in `root`, or of its generated split."""
    if not root.is_dir():
        names = " or ".join(repr(name) for name in GENERATED)
        raise InputError(f"{root} is not a folder; give a folder of photographs, or {names}")
    if not any(root.iterdir()):
        raise InputError(f"{root} is empty; it needs train/ and val/, or a subfolder of images for each class")
    if work_dir.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"work_dir={work_dir} is inside the data {root}; choose a folder outside, because nothing is written there"
        )
    splits = splits_with_val(DiskFolder(root))
    if "train" in splits and "val" in splits:
        _log_unread(splits["train"].path, splits["val"].path)
        return splits["train"].path, splits["val"].path
    if splits:
        there, missing = ("train", "val") if "train" in splits else ("val", "train")
        place = splits[there].path
        raise InputError(
            f"{root} has {place.name}/ with class folders but no {missing}/; add {place.with_name(missing)}, or give"
            f" {place} as the data to split it"
        )
    folder = split_folder(root, work_dir, seed)
    return folder / "train", folder / "val"


def _holds_betons(root: Path) -> bool:
    """Whether `root` is converted data. Raises InputError if it also has folders, which would be ambiguous."""
    there = [name for name in ("train", "val") if (root / f"{name}.beton").is_file()]
    if not there:
        return False
    if len(there) == 1:
        missing = root / ("val.beton" if there == ["train"] else "train.beton")
        raise InputError(f"{root} has {there[0]}.beton but no {missing.name}; convert that split to {missing}")
    folders = [name for name in ("train", "val") if (root / name).is_dir()]
    if folders:
        raise InputError(
            f"{root} holds train.beton and val.beton, but also {folders[0]}/; move one kind to its own folder"
        )
    return True


def _beside(file: Path) -> tuple[Path, Path]:
    """The training file and the test file, one of which is `file`: names that differ in train and val only."""
    for split, other in (("train", "val"), ("val", "train")):
        if split in file.name:
            found = file.with_name(file.name.replace(split, other))
            if not found.is_file():
                raise InputError(f"{file} needs the other split beside it: {found} does not exist; convert it, too")
            return (file, found) if split == "train" else (found, file)
    raise InputError(f"{file} is one split; name both files train.beton and val.beton, and give their folder")


def _check_classes(train: Path, val: Path) -> DataFolders:
    """Both .beton files, which must have the same class list."""
    readers = BetonReader(train), BetonReader(val)
    classes, others = (reader.classes for reader in readers)
    if classes == others:
        _log_sizes(*readers)
        return DataFolders(train, val, classes)
    pairs = zip_longest(classes, others, fillvalue="nothing")
    label, one, other = next((label, *pair) for label, pair in enumerate(pairs) if pair[0] != pair[1])
    raise InputError(
        f"label {label} is {one} in {train} but {other} in {val} ({len(classes)} and {len(others)} classes);"
        f" convert val again with --classes-from {train}"
    )


def _check_pair(train: Path, val: Path) -> DataFolders:
    """Scans both folders. Every class must have images, and both must have the same classes."""
    sources = open_folder(train), open_folder(val)
    classes, others = (source.classes for source in sources)
    for one, names, other, other_names, missing in (
        (train, classes, val, others, "test"),
        (val, others, train, classes, "training"),
    ):
        if only := sorted(set(names) - set(other_names)):
            raise InputError(
                f"class {only[0]} is in {one} but not in {other}; add its {missing} images or remove it from {one.name}"
            )
    _log_sizes(*sources)
    return DataFolders(*(source.path for source in sources), classes)


def _log_unread(train: Path, val: Path) -> None:
    """Says which folders of images beside the splits are not read; links are not followed."""
    beside = DiskFolder(train.parent)
    paths = [train.parent / name for name in beside.folders()]
    for folder in [DiskFolder(path) for path in paths if path not in (train, val) and not path.is_symlink()]:
        if images_in(folder) or any(images_in(folder.inside(name)) for name in folder.folders()):
            notice(f"{folder.place}: not read, because {train.name} and {val.name} beside it are the data")


def _log_sizes(train: FilesSource | BetonReader, val: FilesSource | BetonReader) -> None:
    notice(f"training images: {sizes_line(train)}")
    notice(f"test images: {sizes_line(val)}")


def sizes_line(source: FilesSource | BetonReader) -> str:
    """The path of a split, and its numbers of images and classes."""
    return f"{source.path}, {counted(len(source), 'image')} of {counted(len(source.classes), 'class', 'classes')}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
