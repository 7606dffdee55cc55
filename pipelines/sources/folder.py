"""Images in files: what all folder layouts share, and ImageFolder's own layout."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources.splits import SPLIT_WORDS
from fixres.pipelines.spec import BadSampleError, InputError

# torchvision's IMG_EXTENSIONS. Importing torchvision, for these or for its ImageFolder, takes 6 s.
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


class FilesSource:
    """A list of labeled image files as a `fixres.pipelines.spec.Source`.

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


class FolderSource(FilesSource):
    """An ImageFolder directory. Classes, files and their order are those of torchvision's ImageFolder.

    Attributes:
        classes: names of the subfolders, sorted.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; give one with a subfolder of images for each class")
        classes = subfolders(path)
        if not classes:
            raise InputError(f"{path} has no class folders; it needs a subfolder of images for each class")
        if set(classes) <= set(SPLIT_WORDS) and any(subfolders(path / name) for name in classes):
            raise InputError(
                f"{path} holds the splits {', '.join(classes)}; give one of them, such as {path / classes[0]}"
            )
        super().__init__(path, classes, find_images(path, classes))


def find_images(path: Path, classes: Sequence[str]) -> list[tuple[str, int]]:
    """Image files below the class folders with their labels, in the order of torchvision's ImageFolder.

    Args:
        path: the folder with a subfolder for each class.
        classes: the subfolders' names in label order; each must hold an image.

    Raises:
        InputError: a class folder has no images; a link leads to a folder that contains it; or a link is broken and
            its name does not have an image's ending.
        OSError: a folder cannot be read. torchvision skips the images of such a folder.
    """
    samples = []
    for number, name in enumerate(progress_bar(len(classes), f"reading {path}", unit="folders", iterable=classes)):
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


def subfolders(path: Path) -> list[str]:
    """Names of the folders in `path`, sorted; links to folders count.

    Raises:
        InputError: a link is broken. It may have been a class, and without it the labels of later classes change.
    """
    return _list_folder(path)[0]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; False for a broken link."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _walk(folder: str) -> Iterator[tuple[str, list[str]]]:
    """Yields each folder from `folder` down with the names of its files. Links are followed.

    os.walk is not used because it takes a broken link for a file.
    """
    folders, files = _list_folder(folder)
    yield folder, files
    for inner in (os.path.join(folder, name) for name in folders):
        if os.path.islink(inner) and os.path.realpath(inner) in map(os.path.realpath, (folder, *Path(folder).parents)):
            raise InputError(f"{inner} links to a folder that contains it; remove the link")
        yield from _walk(inner)


def _list_folder(folder: str | Path) -> tuple[list[str], list[str]]:
    """Sorted names of the folders in a folder, and of everything else; a link counts as what it leads to."""
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            (folders if _leads_to_folder(entry) else files).append(entry.name)
    return sorted(folders), sorted(files)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    if not entry.is_symlink():
        return entry.is_dir()
    try:
        return stat.S_ISDIR(entry.stat().st_mode)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        if entry.name.lower().endswith(IMAGE_ENDINGS):
            return False  # a sample that cannot be read: `on_bad` decides
        target = os.readlink(entry.path)
        raise InputError(
            f"{entry.path} is a link to {target}, which does not exist; restore the target or remove the link"
        ) from None
