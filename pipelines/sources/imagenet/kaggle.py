"""Kaggle's "ImageNet Object Localization Challenge", unpacked: train in class folders, val flat with a table."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from fixres.pipelines.imagenet_classes import human_names
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.sources.imagenet.flat import label_flat
from fixres.pipelines.sources.imagenet.val_labels import read_labels
from fixres.pipelines.sources.layout import Images, find_images
from fixres.pipelines.sources.tree import DiskFolder
from fixres.pipelines.spec import InputError

_IMAGES = "ILSVRC/Data/CLS-LOC"
_VAL_TABLE = "LOC_val_solution.csv"
_NAMES = "LOC_synset_mapping.txt"
_MAX_NAMES_BYTES = 16 << 20


class KaggleSource(FilesSource):
    """One split of Kaggle's layout as a `fixres.pipelines.spec.Source`, in ImageFolder's order: by class, then name."""

    def __init__(self, path: str | Path, split: str | None = None, val_labels: str | Path | None = None) -> None:
        """Lists the images of `split`, "train" or "val", in the folder that holds ILSVRC/ and the tables.

        `val_labels` is a file with the labels of the val images instead of LOC_val_solution.csv.
        """
        self.root = kaggle_root(Path(path))
        if self.root is None:
            raise InputError(f"{path} is not laid out as Kaggle's data: it has no {_IMAGES}")
        if split not in ("train", "val"):
            said = "" if split is None else f", not {split!r}, whose images have no labels"
            raise InputError(f"{path} holds several splits; choose train or val with --split{said}")
        folder = self.root / _IMAGES / split
        if not folder.is_dir():
            raise InputError(f"{folder} does not exist; unpack the images of {split}")
        if split == "train" and val_labels is not None:
            raise InputError(
                f"{folder} holds training images, whose labels are their folders' names; omit --val-labels"
            )
        table = self.root / _VAL_TABLE if val_labels is None else Path(val_labels)
        classes, samples = _train(folder) if split == "train" else _val(folder, table)
        super().__init__(folder, classes, samples)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Human-readable names from Kaggle's table, if it exists, else from timm."""
        names = _read_names(self.root / _NAMES)
        return tuple(names.get(synset) or human_names((synset,))[0] for synset in self.classes)


def kaggle_root(path: Path) -> Path | None:
    """The folder that holds ILSVRC/. `path` is that folder or ILSVRC itself; else None."""
    if (path / _IMAGES).is_dir():
        return path
    return path.resolve().parent if path.name == "ILSVRC" and (path / "Data" / "CLS-LOC").is_dir() else None


def _train(folder: Path) -> Images:
    tree = DiskFolder(folder)
    if not tree.folders():
        raise InputError(f"{folder} has no class folders; unpack the images again")
    return find_images(tree, tree.folders())


def _val(folder: Path, table: Path) -> Images:
    if not table.is_file():
        raise InputError(f"{folder} has no labels: {table} is missing; download it, or give --val-labels")
    return label_flat(folder, lambda stems: read_labels(table, stems, folder))


def _read_names(path: Path) -> dict[str, str]:
    """Names by synset, from lines such as `n01440764 tench, Tinca tinca`; empty if the file is missing."""
    if not path.is_file():
        return {}
    with open(path, "rb") as file:
        text = file.read(_MAX_NAMES_BYTES).decode("utf-8", "replace")
    pairs = (line.strip().partition(" ") for line in text.splitlines())
    return {synset: name.strip() for synset, _, name in pairs if name}
