"""Images in one folder without class folders, as in ILSVRC2012_img_val.tar; labels are in another file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.sources.imagenet.devkit import devkit_labels
from fixres.pipelines.sources.imagenet.val_labels import read_labels
from fixres.pipelines.sources.layout import Images, flat_images
from fixres.pipelines.sources.tree import DiskFolder
from fixres.pipelines.spec import InputError


class FlatSource(FilesSource):
    """The unpacked val images of ILSVRC2012 as a `fixres.pipelines.spec.Source`, ordered by class, then name."""

    def __init__(self, path: str | Path, val_labels: str | Path | None = None) -> None:
        """Lists the images of a folder. Labels are read from `val_labels` (see `val_labels.read_labels`).

        If that is None, they are those of the devkit next to the folder.
        """
        path = Path(path)
        if not path.is_dir():
            raise InputError(f"{path} is not a folder; give the one with the unpacked val images")
        if val_labels is None:
            samples = label_flat(path, lambda stems: devkit_labels(path.absolute(), stems))
        else:
            samples = label_flat(path, lambda stems: read_labels(Path(val_labels), stems, path))
        super().__init__(path, *samples)


def label_flat(folder: Path, labels_of: Callable[[Sequence[str]], list[str]]) -> Images:
    """Classes, and image files with their labels by class and name, as `FilesSource` takes them.

    Args:
        folder: holds the images.
        labels_of: called with the sorted names without endings; returns the class of each.
    """
    images = [Path(file) for file in flat_images(DiskFolder(folder))]
    if not images:
        raise InputError(f"{folder} holds no images; unpack the images of val")
    stems = [file.stem for file in images]
    twice = next((stem for stem, other in pairwise(stems) if stem == other), None)
    if twice is not None:
        raise InputError(f"{folder} holds {twice} with two endings; remove one")
    labels = labels_of(stems)
    classes = sorted(set(labels))
    numbers = {name: number for number, name in enumerate(classes)}
    by_class = sorted(zip(labels, map(str, images), strict=True))
    return Images(tuple(classes), [(file, numbers[label]) for label, file in by_class])


def has_val_images(path: Path) -> bool:
    """Whether the folder `path` itself contains ILSVRC2012's val images."""
    return any(entry.name.startswith("ILSVRC2012_val_") and entry.is_file() for entry in os.scandir(path))
