"""From what a person names as data to folders that the engines read: find or make it, split it, convert it once."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from pipelines.beton import BetonReader
from pipelines.randomness import random_words
from pipelines.sources.files import FilesSource
from pipelines.sources.folder import FolderSource
from pipelines.sources.scenes import SceneConfig
from pipelines.sources.scenes_write import RECORD_NAME, is_complete, scenes_record, write_scenes
from pipelines.spec import InputError
from pipelines.writing import atomic_file, atomic_folder

VAL_SHARE = 0.2
"""Share of each class that our own split keeps for testing."""
SPLIT_RECORD = "split.json"
_STREAM_SPLIT = 4  # pipelines.boxes and pipelines.order use streams 1 to 3
_MADE_HERE = ("scenes", "imagenette")
# What each engine reads: a format of pipelines.convert, or None for the image folder itself.
_STORED_AS = {"torch": None, "dali-slice": None, "roc": "roc", "roc-dali": "roc", "ffcv": "ffcv", "dali": "webdataset"}
_STORED_VERSION = 1  # raise it when the same images and options come to be stored otherwise
_log = logging.getLogger(__name__)


# Engines that read .beton files as they are.
_READ_BETON = ("roc", "roc-dali", "ffcv", "torch", "dali-slice")


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
    folder = work_dir / f"scenes-{_digest(record)}"
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


def split_folder(root: Path, work_dir: Path, seed: int) -> Path:
    """A folder with train/ and val/ of symbolic links to the images of `root`, an ImageFolder without a split.

    The split is stratified, depends on the seed and the files' names only, and is recorded in `split.json`. It is used
    again as long as the files are the same; a changed set of files is an error, since the images of the two sides
    would change places unnoticed.
    """
    root = root.resolve()
    source = FolderSource(root)
    files = [Path(file).relative_to(root).as_posix() for file in source.files]
    folder = work_dir / f"split-{root.name}-{_digest(f'{root} {seed}')}"
    if folder.exists():
        _check_recorded(folder, root, files)
        return folder
    val = _stratified(source, seed)
    record = {
        "source": str(root),
        "seed": seed,
        "val_share": VAL_SHARE,
        "train": [file for file, held_out in zip(files, val, strict=True) if not held_out],
        "val": [file for file, held_out in zip(files, val, strict=True) if held_out],
    }
    with atomic_folder(folder) as partial:
        _link(record, root, partial)
        (partial / SPLIT_RECORD).write_text(json.dumps(record, indent=1) + "\n")
    return folder


def _stratified(source: FolderSource, seed: int) -> np.ndarray:
    """bool (N,): which images are held out for val; of each class VAL_SHARE, at least one, never all."""
    words = random_words(seed, _STREAM_SPLIT, 0, np.arange(len(source)), 1)[:, 0]
    val = np.zeros(len(source), bool)
    for label, name in enumerate(source.classes):
        members = np.flatnonzero(source.labels == label)
        if len(members) < 2:
            raise InputError(
                f"class {name} of {source.path} has a single image, which cannot be split; add one or remove the class"
            )
        num_val = max(1, round(VAL_SHARE * len(members)))
        val[members[np.argsort(words[members], kind="stable")[:num_val]]] = True
    return val


def _link(record: dict, root: Path, folder: Path) -> None:
    for split in ("train", "val"):
        for file in record[split]:
            link = folder / split / file
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(root / file)


def _check_recorded(folder: Path, root: Path, files: Sequence[str]) -> None:
    try:
        record = json.loads((folder / SPLIT_RECORD).read_text())
        recorded = sorted(record["train"] + record["val"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{folder} has no readable {SPLIT_RECORD}; remove the folder to have {root} split anew"
        ) from None
    if recorded != sorted(files):
        changed = sorted(set(recorded) ^ set(files))
        raise InputError(
            f"{root} has changed since it was split ({len(changed)} files came or went, such as {changed[0]}); remove"
            f" {folder} to have it split anew"
        )


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


def stored_for(
    engine: str,
    folder: Path,
    work_dir: Path,
    max_side: int,
    quality: int,
    num_workers: int,
    on_bad: Literal["stop", "replace"] = "stop",
) -> Path:
    """The images of `folder` as `engine` reads them: the folder itself, or a file converted once into `work_dir`.

    A converted file is used again while names, sizes and times of the images and all options are those of its record.

    Args:
        engine: one of pipelines.loaders.ENGINES.
        folder: an ImageFolder, or a .beton file, which is never converted again.
        work_dir: where converted files are kept.
        max_side: longest side of a stored image in pixels.
        quality: JPEG quality of images that are encoded again.
        num_workers: processes that convert.
        on_bad: a bad image stops the conversion, or is left out and logged.
    """
    if engine not in _STORED_AS:
        raise InputError(f"engine={engine!r} does not exist; choose one of {', '.join(_STORED_AS)}")
    format = _STORED_AS[engine]
    if folder.is_file():
        if engine not in _READ_BETON:
            raise InputError(f"engine={engine!r} cannot read {folder}; choose one of {', '.join(_READ_BETON)}")
        return folder
    if format is None:
        return folder
    options = {"format": format, "max_side": max_side, "quality": quality, "on_bad": on_bad}
    place = _digest(f"{folder.resolve()} {json.dumps(options)}")
    ending = "" if format == "webdataset" else ".beton"
    stored = work_dir / f"{folder.resolve().parent.name}-{folder.name}-{place}{ending}"
    record = stored.with_name(stored.name + ".json")
    source = FolderSource(folder)
    fingerprint = {
        "version": _STORED_VERSION,
        "source": str(folder.resolve()),
        **options,
        "files": files_digest(source),
    }
    if stored.exists() and read_json(record) == fingerprint:
        return stored
    from pipelines.convert import convert

    record.unlink(
        missing_ok=True
    )  # so that a crash between the two writes leaves a file without a record, not with an old one
    done = convert(
        source,
        stored,
        format,
        max_side=max_side,
        quality=quality,
        num_workers=num_workers,
        on_bad="skip" if on_bad == "replace" else "stop",
        overwrite=True,
        restart=None,
        fingerprint=fingerprint["files"],
    )
    for line in done.bad_samples:
        _log.warning("left out: %s", line)
    with atomic_file(record) as partial:
        partial.write_text(json.dumps(fingerprint, indent=1) + "\n")
    return stored


def files_digest(source: FilesSource) -> str:
    """Digest of names (relative to the folder), sizes and modification times of all images."""
    digest = hashlib.sha256()
    for file in source.files:
        status = os.stat(file)
        name = os.path.relpath(file, source.path)
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_json(path: Path) -> object:
    """What `path` holds, or None if it is missing or no JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
