"""Images in class folders, in the order of torchvision's ImageFolder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipelines.spec import BadSampleError, InputError

_SPLITS = {"train", "val", "valid", "validation", "test"}


class FolderSource:
    """An ImageFolder directory as a `pipelines.spec.Source`.

    Classes, files and their order are torchvision's, because its own functions find them.

    Attributes:
        path: the folder.
        classes: names of its subfolders, sorted.
        labels: int64 (N,).
        files: path of each image.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError(f"{self.path} is no folder; give one with a subfolder of images for each class")
        self.classes, samples = _scan(self.path)
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


def _scan(path: Path) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    # Importing torchvision takes seconds, so only those pay who read a folder.
    from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    if not classes:
        raise InputError(f"{path} has no class folders; it needs a subfolder of images for each class")
    if set(classes) <= _SPLITS and any(child.is_dir() for name in classes for child in (path / name).iterdir()):
        raise InputError(f"{path} holds the splits {', '.join(classes)}; give one of them, such as {path / classes[0]}")
    numbers = {name: number for number, name in enumerate(classes)}
    samples = make_dataset(str(path), numbers, extensions=IMG_EXTENSIONS, allow_empty=True)
    empty = sorted(set(classes) - {classes[label] for _, label in samples})
    if empty:
        raise InputError(
            f"{path / empty[0]} holds no images ({len(empty)} of {len(classes)} class folders are empty); add"
            f" {', '.join(ending[1:] for ending in IMG_EXTENSIONS)} files or remove the folder"
        )
    return tuple(classes), samples
