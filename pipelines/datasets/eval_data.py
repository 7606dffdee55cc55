"""Data to evaluate on: the val split of a `DataConfig`, or a single split such as ImageNet-V2 or ImageNet's val."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fixres.pipelines.datasets.conversion_cache import convert_for_engine, convert_once
from fixres.pipelines.datasets.fingerprints import short_digest
from fixres.pipelines.datasets.prepared import PreparedData, Split, StoredSplits, choose_engine
from fixres.pipelines.datasets.resolve import sizes_line
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.loaders import has_records
from fixres.pipelines.runtime.notices import notice
from fixres.pipelines.sources import open_folder
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.sources.imagenet.flat import FlatSource
from fixres.pipelines.sources.imagenet.val_labels import read_labels
from fixres.pipelines.sources.kinds import KINDS, recognize
from fixres.pipelines.spec import DataConfig, InputError


def open_eval_data(config: DataConfig, device: str, images: Path | None = None) -> StoredSplits:
    """The data of `config`, or `images` alone.

    A .beton file as `config.path` is the test split itself, but train.beton stands for the pair with val.beton.

    Args:
        config: which images, which engine.
        device: where batches arrive, "cpu" or "cuda[:n]".
        images: class folders, ImageNet-V2, the unpacked val images of ILSVRC2012 with their devkit, or a .beton file.
    """
    file = Path(config.path or "")
    if images is None and file.suffix == ".beton" and file.is_file() and "train" not in file.name:
        images = file
    return PreparedData(config, device) if images is None else SingleSplit(images, config, device)


class SingleSplit(StoredSplits):
    """One split, called val, converted once into `config.work_dir` if the engine needs that."""

    def __init__(self, path: Path, config: DataConfig, device: str) -> None:
        if not path.is_dir() and not path.is_file():
            problem = "is neither a file nor a folder" if path.exists() else "does not exist"
            raise InputError(f"{path} {problem}; give class folders, ImageNet-V2, or a .beton file")
        self._images = path
        is_file = path.is_file() and recognize(path) == "beton"
        engine, _ = choose_engine(config.engine, device, is_file and has_records(path))
        self._opened: BetonReader | FilesSource = BetonReader(path) if is_file else _open_single_split(path)
        super().__init__(config, device, engine, self._opened.classes)
        notice(f"test images: {sizes_line(self._opened)}")

    def _path(self, split: Split) -> Path:
        self._check(split)
        return super()._path(split)

    def place(self, split: Split) -> Path:
        """The folder or file of test images."""
        self._check(split)
        return self._images

    def _converted(self, _: Split) -> Path:
        path = self._images
        if isinstance(self._opened, FlatSource):  # engines read class folders; a .beton file carries the labels
            path = _convert(path, self._opened, self.config)
        return convert_for_engine(self.engine, path, self.config)

    def _source(self, split: Split) -> BetonReader | FilesSource:
        self._check(split)
        return self._opened

    def _check(self, split: Split) -> None:
        if split != "val":
            raise InputError(f"{self._images} holds test images only, not the split {split}")


def names_for_real(data: StoredSplits, val_labels: Path | None) -> list[str] | None:
    """Names of the val images for ReaL labels. If the data keeps no names, they are found by ImageNet's val labels."""
    names = data.image_names("val")
    if names is not None or val_labels is None:
        return names
    return names_by_labels(val_labels, data.labels("val"), data.classes)


def names_by_labels(labels_file: Path, labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Names of ImageNet's val images in converted data, which keeps their order but not their names.

    The order is either by class and then by name, as in most sources, or by name. It must fit the data's labels.

    Args:
        labels_file: labels of the val images, see `fixres.pipelines.sources.imagenet.val_labels.read_labels`.
        labels: int64 (N,), of the data in its order.
        classes: of the data.
    """
    stems = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(labels) + 1)]
    synsets = read_labels(labels_file, stems, labels_file)
    wanted = [classes[label] for label in labels.tolist()]
    by_name = list(zip(synsets, stems, strict=True))
    for order in (sorted(by_name), by_name):
        if [synset for synset, _ in order] == wanted:
            return [stem for _, stem in order]
    raise InputError(
        f"the labels in {labels_file} do not fit the data's {len(labels)} images in any known order; give the labels of"
        " the same images"
    )


def _open_single_split(path: Path) -> FilesSource:
    kind = recognize(path)
    if kind not in ("folder", "imagenet_v2", "flat"):
        command = shlex.join(["fixres", "convert", str(path), "val.beton", "--split", "val"])
        raise InputError(f"{path} is {KINDS[kind]}; convert it first: {command}")
    return FlatSource(path) if kind == "flat" else open_folder(path)


def _convert(path: Path, source: FilesSource, config: DataConfig) -> Path:
    """A .beton file of the source in the work folder."""
    folder, options = path.resolve(), {"max_side": config.max_side, "quality": config.quality}
    stored = config.work_dir / f"test-{folder.name}-{short_digest(f'{folder} {json.dumps(options)}')}.beton"
    return convert_once(source, stored, "roc", config, {"source": str(folder), **options})
