"""Images in class folders named 0, 1, 2, ..., as in ImageNet-V2. The number is the label.

Sorted as text, "10" comes before "2": 988 of ImageNet-V2's 1000 classes would silently get a wrong label.
"""

from __future__ import annotations

import os
from pathlib import Path

from fixres.pipelines.imagenet_classes import numbered_classes
from fixres.pipelines.sources.folder import FilesSource, find_images, is_folder, subfolders
from fixres.pipelines.spec import InputError

_MIN_CLASSES = 11  # with ten or fewer folders both orders are the same


class ImageNetV2Source(FilesSource):
    """Class folders "0", "1", ... as a `fixres.pipelines.spec.Source`.

    Attributes:
        classes: the 1000 synsets if there are exactly 1000 folders, else "0", "1", ...
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        names = subfolders(path) if path.is_dir() else []
        numbers = [str(number) for number in range(len(names))]
        if not names or sorted(numbers) != names:
            raise InputError(
                f"{path} is not laid out as ImageNet-V2: it needs class folders 0, 1, 2 and so on without gaps, and"
                " nothing else"
            )
        # torchvision lists the folders by name.
        super().__init__(path, numbers, sorted(find_images(path, numbers), key=lambda sample: sample[1]))
        self.classes = numbered_classes(self.labels, num_classes=len(names)).classes


def has_numbered_folders(path: Path) -> bool:
    """Whether the folders in `path` are 0, 1, 2, ... without gaps, and at least 11, so that the order matters."""
    names = [entry.name for entry in os.scandir(path) if is_folder(entry)]
    return len(names) >= _MIN_CLASSES and set(names) == {str(number) for number in range(len(names))}
