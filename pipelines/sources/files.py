"""Images that lie as files of their own, as a source: what all folder layouts share."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from pipelines.sources.synsets import human_names
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
        InputError: a class folder without images, or a link to a folder that it lies in.
        OSError: a folder that cannot be read; torchvision passes over its images.
    """
    samples = []
    for number, name in enumerate(classes):
        for root, _, files in sorted(_walk(path / name)):
            images = (file for file in sorted(files) if file.lower().endswith(IMAGE_ENDINGS))
            samples += [(os.path.join(root, image), number) for image in images]
    empty = sorted(set(classes) - {classes[label] for _, label in samples})
    if empty:
        raise InputError(
            f"{path / empty[0]} holds no images ({len(empty)} of {len(classes)} class folders are empty); add"
            f" {', '.join(ending[1:] for ending in IMAGE_ENDINGS)} files or remove the folder"
        )
    return samples


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As os.walk, links followed, but nothing is passed over and nothing comes twice for a link that leads back up."""

    def fail(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        for link in (os.path.join(root, name) for name in folders):
            if os.path.islink(link) and os.path.realpath(link) in map(os.path.realpath, (root, *Path(root).parents)):
                raise InputError(f"{link} leads back to a folder that it lies in; remove the link")
        yield root, folders, files


def subfolders(path: Path) -> list[str]:
    """Names of the folders in `path`, sorted; links to folders count."""
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
