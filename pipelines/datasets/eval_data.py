"""Images to test on, alone or as the val split of a pair, with their classes and names.

ImageNet-V2 and ImageNet's val are no pairs of train and val; everything here opens them as one split.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from pipelines.datasets.conversion_cache import files_digest, read_json, stored_for
from pipelines.datasets.prepared import PreparedData, choose_engine, stored_as
from pipelines.formats.beton_reader import BetonReader
from pipelines.loaders import open_loader
from pipelines.runtime.atomic_files import write_json
from pipelines.sources import open_source
from pipelines.sources.folder import FilesSource, FolderSource
from pipelines.sources.imagenet.val_labels import labels_for, read_labels
from pipelines.sources.kinds import recognize
from pipelines.spec import DataConfig, InputError, Loader, LoaderConfig


class TestData(Protocol):
    """Data that a network can be tested on."""

    __test__ = False  # no test, whatever pytest makes of the name

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        ...

    def __call__(self, split: Literal["train", "val"], **fields: Any) -> Loader:
        """A loader, see `pipelines.spec.OpenLoader`."""
        ...

    def image_names(self, split: Literal["train", "val"]) -> list[str] | None:
        """The images' names in order, None where they are not kept."""
        ...

    def labels(self, split: Literal["train", "val"]) -> np.ndarray:
        """int64 (N,)."""
        ...

    def stored(self, split: Literal["train", "val"]) -> dict[str, Any]:
        """What decides the pixels beside the crop, see `pipelines.datasets.prepared.stored_as`."""
        ...


def open_test_data(config: DataConfig, device: str, images: Path | None = None) -> TestData:
    """The data of `config`, or `images` alone.

    Args:
        config: which images, which engine.
        device: where batches arrive, "cpu" or "cuda[:n]".
        images: class folders, ImageNet-V2, the unpacked val images of ILSVRC2012 with their devkit, or a .beton file.
    """
    return PreparedData(config, device) if images is None else SingleSplit(images, config, device)


class SingleSplit:
    """One split as `TestData`, converted once into `config.work_dir` if the engine needs that.

    Attributes:
        engine: name of the engine.
    """

    def __init__(self, path: Path, config: DataConfig, device: str) -> None:
        if not path.exists():
            raise InputError(f"{path} does not exist; give class folders, ImageNet-V2, or a .beton file")
        self.config, self._path, self._device = config, path, device
        is_file = path.is_file() and recognize(path) == "beton"
        records = not is_file or "roc" in BetonReader(path).field_names
        self.engine, _ = choose_engine(config.engine, device, records)
        settings = (config.work_dir, config.max_side, config.quality, config.num_workers)
        self._source: BetonReader | FilesSource = BetonReader(path) if is_file else _only_split(path)
        if is_file or type(self._source) is FolderSource:
            self._stored = stored_for(self.engine, path, *settings)
        else:
            # Engines read class folders by name, where 10 comes before 2; a .beton file carries the labels.
            self._stored = stored_for(self.engine, _converted(path, self._source, config), *settings)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(self._source.classes)

    def __call__(self, split: Literal["train", "val"], **fields: Any) -> Loader:
        """A loader of the split, which is called val."""
        self._check(split)
        config = LoaderConfig(
            path=self._stored,
            num_workers=self.config.num_workers,
            device=self._device,
            on_bad=self.config.on_bad,
            min_zoom=self.config.min_zoom,
            dali=self.config.dali,
            **fields,
        )
        return open_loader(self.engine, config)

    def image_names(self, split: Literal["train", "val"]) -> list[str] | None:
        """The files' paths, or None for a .beton file, which does not keep them."""
        self._check(split)
        return list(self._source.files) if isinstance(self._source, FilesSource) else None

    def labels(self, split: Literal["train", "val"]) -> np.ndarray:
        """int64 (N,)."""
        self._check(split)
        return np.asarray(self._source.labels)

    def stored(self, split: Literal["train", "val"]) -> dict[str, Any]:
        """What decides the pixels beside the crop, see `pipelines.datasets.prepared.stored_as`."""
        self._check(split)
        return stored_as(self.engine, self.config, self._stored)

    def _check(self, split: str) -> None:
        if split != "val":
            raise InputError(f"{self._path}: there are test images only, no {split}")


def names_for_real(data: TestData, val_labels: Path | None) -> list[str] | None:
    """Names of the test images as ReaL needs them, found by the labels of ImageNet's val if the data keeps none."""
    names = data.image_names("val")
    if names is not None or val_labels is None:
        return names
    return names_by_labels(val_labels, data.labels("val"), data.classes)


def names_by_labels(labels_file: Path, labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Names of ImageNet's val images in converted data, which keeps their order but not their names.

    Sources give val by class and, within a class, by name. The labels say how many images each class has, so the order
    can be made again; it must fit the data's labels.

    Args:
        labels_file: labels of the val images, see `pipelines.sources.imagenet.val_labels.read_labels`.
        labels: int64 (N,), of the data in its order.
        classes: of the data.
    """
    stems = [f"ILSVRC2012_val_{number:08d}" for number in range(1, len(labels) + 1)]
    synsets = labels_for(stems, read_labels(labels_file), labels_file)
    named = [classes[label] for label in labels.tolist()]
    by_class = sorted(zip(synsets, stems, strict=True))
    for order in (by_class, list(zip(synsets, stems, strict=True))):
        if [synset for synset, _ in order] == named:
            return [stem for _, stem in order]
    raise InputError(
        f"the labels of {labels_file} are those of no order of the data's {len(labels)} images; give the labels of"
        " the same images"
    )


def _only_split(path: Path) -> FilesSource:
    kind = recognize(path)
    if kind not in ("folder", "imagenet_v2", "flat"):
        raise InputError(
            f"{path} is {kind}; convert it first: python tools/convert_imagenet.py {path} val.beton --format roc "
            "--split val"
        )
    source = open_source(path, kind)
    assert isinstance(source, FilesSource)
    return source


def _converted(path: Path, source: FilesSource, config: DataConfig) -> Path:
    """A .beton file of the source in the work folder, made again if the images or the options change."""
    from pipelines.conversion.converter import convert

    options = {"max_side": config.max_side, "quality": config.quality}
    place = hashlib.sha256(f"{path.resolve()} {json.dumps(options)}".encode()).hexdigest()[:10]
    stored = config.work_dir / f"test-{path.resolve().name}-{place}.beton"
    record = stored.with_name(stored.name + ".json")
    wanted = {"source": str(path.resolve()), **options, "files": files_digest(source)}
    if stored.exists() and read_json(record) == wanted:
        return stored
    record.unlink(missing_ok=True)
    convert(source, stored, "roc", **options, num_workers=config.num_workers, overwrite=True, restart=None)
    write_json(record, wanted)
    return stored
