"""Images in class folders that are named by ImageNet's class numbers, as in ImageNet-V2. The number is the label.

Sorted as text, "10" comes before "2": 988 of ImageNet-V2's 1000 classes would silently get a wrong label.
"""

from __future__ import annotations

import re
from pathlib import Path

from fixres.pipelines.imagenet_classes import NUM_IMAGENET, imagenet_synsets
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.sources.layout import find_images
from fixres.pipelines.sources.tree import DiskFolder
from fixres.pipelines.spec import InputError


class ImageNetV2Source(FilesSource):
    """Class folders "0" to "999", or some of them, as a `fixres.pipelines.spec.Source`.

    Attributes:
        classes: the synsets of these numbers, sorted.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        folder = DiskFolder(path)
        folders = folder.folders() if path.is_dir() else []
        if not folders or not all(re.fullmatch("0|[1-9][0-9]{0,2}", name) for name in folders):
            raise InputError(
                f"{path} is not laid out as ImageNet-V2: it needs class folders with names from 0 to 999, and nothing"
                " else"
            )
        in_order, synsets = sorted(folders, key=int), imagenet_synsets()
        super().__init__(path, [synsets[int(name)] for name in in_order], find_images(folder, in_order).samples)


def is_imagenet_v2(path: Path) -> bool:
    """Whether the folders in `path` are 0 to 999. Fewer may be the user's own classes, whose names are text."""
    return set(DiskFolder(path).folders()) == {str(number) for number in range(NUM_IMAGENET)}
