"""Images in files: what all folder layouts share, and ImageFolder's own layout."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fixres.pipelines.formats.samples import ImagePlaces
from fixres.pipelines.runtime.notices import counted, notice
from fixres.pipelines.sources.layout import class_folders, find_images, flat_images
from fixres.pipelines.sources.tree import DiskFolder
from fixres.pipelines.spec import BadSampleError, InputError


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
            return _read_file(self.files[index])
        except OSError as error:
            raise BadSampleError(f"{self.files[index]}: cannot be read ({error.strerror})", index) from None

    def name(self, index: int) -> str:
        """The file's path."""
        return self.files[index]

    def places(self) -> ImagePlaces:
        """Each image is a file."""
        return ImagePlaces(self.files, np.arange(len(self)), np.zeros(len(self), np.int64))


class FolderSource(FilesSource):
    """An ImageFolder directory. Classes, files and their order are those of torchvision's ImageFolder.

    Hidden files and folders are left out, though; see `fixres.pipelines.sources.tree`.

    Attributes:
        path: the folder with the class folders, which may be below the given one (`layout.class_folders`).
        classes: names of the subfolders, sorted.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; give one with a subfolder of images for each class")
        root = class_folders(DiskFolder(path))
        super().__init__(root.path, *find_images(root, root.folders()))


class PicturesSource(FilesSource):
    """Pictures in one folder, without class folders, as one class that is called like the folder.

    For measurements of throughput; nothing can be learned from one class.
    """

    def __init__(self, path: Path) -> None:
        name = path.resolve().name
        super().__init__(path, [name], [(file, 0) for file in flat_images(DiskFolder(path))])
        notice(
            f"{path}: no class folders, so all {counted(len(self), 'image')} are one class, {name}; that measures"
            " throughput, but nothing can be trained"
        )


def _read_file(file: str) -> bytes:
    """The bytes of a regular file; a pipe that took its place since the folder was listed does not make us wait."""
    with open(file, "rb", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return opened.readall()
