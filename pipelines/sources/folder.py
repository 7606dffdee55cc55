"""Images in class folders, in the order of torchvision's ImageFolder."""

from __future__ import annotations

from pathlib import Path

from pipelines.sources.files import FilesSource, find_images, subfolders
from pipelines.sources.splits import SPLIT_WORDS
from pipelines.spec import InputError


class FolderSource(FilesSource):
    """An ImageFolder directory as a `pipelines.spec.Source`.

    Classes, files and their order are torchvision's, because its own functions find them.

    Attributes:
        path: the folder.
        classes: names of its subfolders, sorted.
        labels: int64 (N,).
        files: path of each image.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if not path.is_dir():
            raise InputError(f"{path} is no folder; give one with a subfolder of images for each class")
        classes = subfolders(path)
        if not classes:
            raise InputError(f"{path} has no class folders; it needs a subfolder of images for each class")
        if set(classes) <= set(SPLIT_WORDS) and any(subfolders(path / name) for name in classes):
            raise InputError(
                f"{path} holds the splits {', '.join(classes)}; give one of them, such as {path / classes[0]}"
            )
        super().__init__(path, classes, find_images(path, classes))
