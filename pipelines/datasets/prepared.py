"""From a `DataConfig` to loaders: find or make the images, store them as the engine reads them, open splits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pipelines.datasets.conversion_cache import stored_for
from pipelines.datasets.fingerprints import Unchanged, fingerprint
from pipelines.datasets.resolve import DataFolders, find_data
from pipelines.formats.beton_reader import BetonReader
from pipelines.inspection.image_headers import image_sizes
from pipelines.loaders import is_installed, open_loader
from pipelines.sources import open_stored
from pipelines.sources.folder import FolderSource
from pipelines.spec import DataConfig, Loader, LoaderConfig


class Choice(NamedTuple):
    """An engine, and in one line why it."""

    engine: str
    why: str


def choose_engine(name: str, device: str, has_records: bool = True) -> Choice:
    """The engine `name`, or for "auto" the one for the hardware.

    On CPUs `roc` is the fastest (benchmarks/results/throughput.json). That `roc-dali` is on a GPU is what its host work
    of some microseconds an image lets expect; it has not been measured (docs/gpu.md).

    Args:
        name: one of pipelines.loaders.ENGINES, or "auto".
        device: where batches arrive, "cpu" or "cuda[:n]".
        has_records: whether the data is stored, or will be, as RoC files.
    """
    if name != "auto":
        return Choice(name, f"engine {name}: as asked for")
    if torch.device(device).type != "cuda":
        return Choice("roc", "engine roc: batches stay on the CPU, where it is the fastest")
    if not has_records:
        return Choice("roc", "engine roc: the .beton files have no RoC records, which roc-dali needs")
    if is_installed("roc-dali"):
        return Choice("roc-dali", f"engine roc-dali: {device} decodes, so that the host only cuts bytes")
    return Choice("roc", "engine roc: DALI is missing, so the CPU decodes; pip install 'roc-fixres[dali]' for roc-dali")


def _has_records(data: DataFolders) -> bool:
    """Whether both splits are RoC files, or folders, which are converted to what the engine reads."""
    return all(split.is_dir() or "roc" in BetonReader(split).field_names for split in (data.train, data.val))


def stored_as(engine: str, config: DataConfig, stored: Path) -> dict[str, Any]:
    """What decides the pixels of a split beside its crop: "engine", "min_zoom", "fingerprint" of what is stored.

    Args:
        engine: that reads it.
        config: with which.
        stored: file or folder.
    """
    return {"engine": engine, "min_zoom": config.min_zoom, "fingerprint": fingerprint([stored])}


class PreparedData:
    """Images found and stored as one engine reads them; calling it opens a loader of a split.

    Args:
        config: which images, which engine.
        device: where batches arrive, "cpu" or "cuda[:n]".

    Attributes:
        engine: name of the engine.
        engine_why: a line that says why this one.
        fingerprint: of the stored images, see `pipelines.datasets.fingerprints`.
        prepare_seconds: what finding, making and converting took in this process.
    """

    def __init__(self, config: DataConfig, device: str) -> None:
        start = time.perf_counter()
        self.config, self.device = config, device
        self._folders = find_data(config.path, config.work_dir, config.seed)
        self.engine, self.engine_why = choose_engine(config.engine, device, _has_records(self._folders))
        self._stored = {
            split: stored_for(self.engine, folder, config.work_dir, config.max_side, config.quality, config.num_workers)
            for split, folder in (("train", self._folders.train), ("val", self._folders.val))
        }
        self.fingerprint = fingerprint(list(self._stored.values()))
        self._unchanged = Unchanged(list(self._stored.values()))
        self.prepare_seconds = time.perf_counter() - start

    def __call__(self, split: Literal["train", "val"], **fields: Any) -> Loader:
        """A loader of `split`; `fields` are those of LoaderConfig that `DataConfig` does not settle."""
        config = LoaderConfig(
            path=self._stored[split],
            num_workers=self.config.num_workers,
            device=self.device,
            on_bad=self.config.on_bad,
            min_zoom=self.config.min_zoom,
            dali=self.config.dali,
            **fields,
        )
        return open_loader(self.engine, config)

    def check_unchanged(self) -> None:
        """Raises InputError if the stored files are not those that were found at the start."""
        self._unchanged.check()

    def stored(self, split: Literal["train", "val"]) -> dict[str, Any]:
        """What decides the pixels of `split` beside its crop, see `stored_as`."""
        return stored_as(self.engine, self.config, self._stored[split])

    def train_sizes(self) -> np.ndarray:
        """int64 (N, 2): heights and widths of training images; of some, chosen by chance, if no table has all."""
        return image_sizes(open_stored(self._stored["train"])).sizes

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return self._folders.classes

    def image_names(self, split: Literal["train", "val"]) -> list[str] | None:
        """Paths of the images of `split` in order; None for .beton files, which do not keep names."""
        source = self._source(split)
        return list(source.files) if isinstance(source, FolderSource) else None

    def labels(self, split: Literal["train", "val"]) -> np.ndarray:
        """int64 (N,)."""
        return np.asarray(self._source(split).labels)

    def _source(self, split: Literal["train", "val"]) -> FolderSource | BetonReader:
        path = self._folders.train if split == "train" else self._folders.val
        return FolderSource(path) if path.is_dir() else BetonReader(path)

    def describe(self) -> dict[str, Any]:
        """What a report says of the data."""
        return {
            "path": self.config.path,
            "engine": self.engine,
            "engine_why": self.engine_why,
            "classes": list(self._folders.classes),
            "fingerprint": self.fingerprint,
            "prepare_seconds": self.prepare_seconds,
        }
