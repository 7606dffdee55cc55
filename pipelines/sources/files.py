"""Images that lie as files of their own, as a source: what all folder layouts share."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.imagenet_classes import human_names
from pipelines.spec import BadSampleError, InputError

# torchvision's IMG_EXTENSIONS; importing torchvision for them, and for its walk through folders, takes 6 s.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class FilesSource:
    """A list of labelled image files as a `pipelines.spec.Source`.

    Attributes:
        path: the folder they were found in.
        classes: names in label order.
        labels: int64 (N,).
        files: path of each image.
    """

    def __init__(self, path: Path, classes: Sequence[str], samples: Sequence[tuple[str, int]]) -> None:
        self.path = path
        self.classes = tuple(classes)
        self.files = [file for file, _ in samples]
        self.labels = np.array([label for _, label in samples], np.int64)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """What a person calls the classes; looked up on first use, because that imports timm."""
        return human_names(self.classes)

    def __len__(self) -> int:
        return len(self.files)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        try:
            return Path(self.files[index]).read_bytes()
        except OSError as error:
            raise BadSampleError(f"{self.files[index]}: cannot be read ({error.strerror})", index) from None

    def name(self, index: int) -> str:
        """The file's path."""
        return self.files[index]


def find_images(path: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    """Image files below the class folders with their labels, in the order of torchvision's ImageFolder.

    Args:
        path: the folder with a subfolder for each class.
        classes: the subfolders' names in label order; each must hold an image.

    Raises:
        InputError: no images in a class folder, a link to a folder that it lies in, or one that leads nowhere and is
            not named like an image.
        OSError: a folder that cannot be read; torchvision passes over its images.
    """
    samples = []
    for number, name in enumerate(classes):
        for root, files in sorted(_walk(str(path / name))):
            images = (file for file in files if file.lower().endswith(IMAGE_ENDINGS))
            samples += [(os.path.join(root, image), number) for image in images]
    empty = sorted(set(classes) - {classes[label] for _, label in samples})
    if empty:
        raise InputError(
            f"{path / empty[0]} holds no images ({len(empty)} of {len(classes)} class folders are empty); add"
            f" {', '.join(ending[1:] for ending in IMAGE_ENDINGS)} files or remove the folder"
        )
    return samples


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Folders from `folder` down and the files in each, links followed; nothing is passed over or comes twice.

    os.walk would take a link that leads nowhere for a file.
    """
    folders, files = _listed(folder)
    yield folder, files
    for inner in (os.path.join(folder, name) for name in folders):
        if os.path.islink(inner) and os.path.realpath(inner) in map(os.path.realpath, (folder, *Path(folder).parents)):
            raise InputError(f"{inner} leads back to a folder that it lies in; remove the link")
        yield from _walk(inner)


def subfolders(path: Path) -> list[str]:
    """Names of the folders in `path`, sorted; links to folders count.

    Raises:
        InputError: a link that leads nowhere: it may have been a class, without which labels count otherwise.
    """
    return _listed(path)[0]


def _listed(folder: str | Path) -> tuple[list[str], list[str]]:
    """Names of the folders, and of all else, in a folder, sorted; links are what they lead to."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            (folders if _leads_to_folder(entry) else files).append(entry.name)
    return sorted(folders), sorted(files)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one, and no error for any other link."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return entry.is_dir()
    try:
        return stat.S_ISDIR(entry.stat().st_mode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if entry.name.lower().endswith(IMAGE_ENDINGS):
            return False  # an image that cannot be read: `on_bad` decides
        target = os.readlink(entry.path)
        raise InputError(
            f"{entry.path} is a link to {target}, which is not there; bring it back or remove the link"
        ) from None
