"""Data that is ready for training or evaluation: stored as one engine reads it, opened as loaders of its splits."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch

from fixres.pipelines.datasets.conversion_cache import convert_for_engine
from fixres.pipelines.datasets.fingerprints import Unchanged, fingerprint
from fixres.pipelines.datasets.resolve import is_converted, resolve_data
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.inspection.image_headers import image_sizes
from fixres.pipelines.loaders import has_records, is_installed, open_loader
from fixres.pipelines.loaders.indexed_crops import compile_aside
from fixres.pipelines.sources import open_folder, open_stored
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.spec import DataConfig, EvalCrop, InputError, Loader, LoaderConfig, zoom_of

Split = Literal["train", "val"]


class EngineChoice(NamedTuple):
    """An engine, and one line that says why it was chosen."""

    engine: str
    why: str


def choose_engine(name: str, device: str, has_records: bool = True) -> EngineChoice:
    """The engine `name`, or for "auto" the one for the hardware.

    On CPUs `roc` is the fastest (benchmarks/results/throughput.json). On GPUs `roc-dali` is expected to be the fastest,
    because its host work is some microseconds an image; this has not been measured (docs/gpu.md).

    Args:
        name: one of fixres.pipelines.loaders.ENGINES, or "auto".
        device: where batches arrive, "cpu" or "cuda[:n]".
        has_records: whether the data is stored as RoC files.
    """
    if name != "auto":
        return EngineChoice(name, f"engine {name}: as configured")
    if torch.device(device).type != "cuda":
        return EngineChoice("roc", "engine roc: batches stay on the CPU, where it is the fastest")
    if not has_records:
        return EngineChoice("roc", "engine roc: the images are no RoC records, which roc-dali needs")
    if is_installed("roc-dali"):
        return EngineChoice("roc-dali", f"engine roc-dali: {device} decodes, so that the host only cuts bytes")
    return EngineChoice(
        "roc", "engine roc: DALI is missing, so the CPU decodes; pip install 'roc-fixres[dali]' for roc-dali"
    )


class StoredSplits:
    """The splits of a data set, stored as one engine reads them. Calling it opens a loader of a split.

    Attributes:
        config: which images, which engine.
        device: where batches arrive, "cpu" or "cuda[:n]".
        engine: name of the engine.
        classes: class names in label order.
    """

    def __init__(self, config: DataConfig, device: str, engine: str, classes: tuple[str, ...]) -> None:
        self.config, self.device, self.engine, self.classes = config, device, engine, tuple(classes)
        self._stored: dict[Split, Path] = {}

    def __call__(self, split: Split, **fields: Any) -> Loader:
        """Opens a loader of `split`; `fields` are the fields of LoaderConfig that `DataConfig` does not have."""
        config = LoaderConfig(
            path=self._path(split),
            num_workers=self.config.num_workers,
            device=self.device,
            on_bad=self.config.on_bad,
            min_zoom=self.config.min_zoom,
            resident=self.config.resident,
            dali=self.config.dali,
            **fields,
        )
        return open_loader(self.engine, config)

    def pixel_settings(self, split: Split) -> dict[str, Any]:
        """Everything that determines the pixels of `split` apart from the crop."""
        stored = fingerprint([self._path(split)])
        return {"engine": self.engine, "min_zoom": zoom_of(EvalCrop(), self.config.min_zoom), "fingerprint": stored}

    def image_names(self, split: Split) -> list[str] | None:
        """The images' paths in order; None for .beton files, which do not keep names."""
        source = self._source(split)
        return list(source.files) if isinstance(source, FilesSource) else None

    def labels(self, split: Split) -> np.ndarray:
        """int64 (N,)."""
        return np.asarray(self._source(split).labels)

    def _path(self, split: Split) -> Path:
        """Where the split is stored as the engine reads it; converts it when it is needed first."""
        if split not in self._stored:
            self._stored[split] = self._converted(split)
        return self._stored[split]

    def place(self, split: Split) -> Path:
        """The images as the user stored them."""
        raise NotImplementedError

    def _converted(self, split: Split) -> Path:
        raise NotImplementedError

    def _source(self, split: Split) -> FilesSource | BetonReader:
        raise NotImplementedError


class PreparedData(StoredSplits):
    """The data of a `DataConfig`: train and val, generated, downloaded and split as necessary.

    A split is converted when it is opened first, so that its classes can be checked before. `prepare` converts both.

    Attributes:
        engine_why: a line that says why this engine was chosen.
        fingerprint: of the stored images, see `fixres.pipelines.datasets.fingerprints`; after `prepare`.
        prepare_seconds: time that the preparation took in this process.
    """

    fingerprint: str

    def __init__(self, config: DataConfig, device: str) -> None:
        start = time.perf_counter()
        if device == "cpu" and config.engine in ("auto", "roc") and not is_converted(config.path or ""):
            compile_aside()  # before scenes are drawn or classes are listed
        self._folders = resolve_data(config.path, config.work_dir, config.seed)
        engine, self.engine_why = choose_engine(config.engine, device, all(map(has_records, self._folders[:2])))
        super().__init__(config, device, engine, self._folders.classes)
        self.prepare_seconds = time.perf_counter() - start

    def prepare(self) -> Self:
        """Converts both splits now, for training, and notes what their files look like, for `check_unchanged`.

        Raises:
            InputError: there is only one class.
        """
        if len(self.classes) == 1:
            raise InputError(
                f"{self.place('train')} has a single class, {self.classes[0]}; training needs two or more, each with a"
                " folder of images"
            )
        start = time.perf_counter()
        paths = [self._path("train"), self._path("val")]
        self.fingerprint = fingerprint(paths)
        self._unchanged = Unchanged(paths)
        self.prepare_seconds += time.perf_counter() - start
        return self

    def check_unchanged(self) -> None:
        """Raises InputError if the stored files have changed since the start."""
        self._unchanged.check()

    def train_sizes(self) -> np.ndarray:
        """int64 (N, 2): heights and widths of training images, or of random ones if there is no table of all."""
        return image_sizes(open_stored(self._path("train"))).sizes

    def describe(self) -> dict[str, Any]:
        """Facts about the data for a report."""
        return {
            "path": self.config.path,
            "engine": self.engine,
            "engine_why": self.engine_why,
            "classes": list(self.classes),
            "fingerprint": self.fingerprint,
            "prepare_seconds": self.prepare_seconds,
        }

    def _converted(self, split: Split) -> Path:
        return convert_for_engine(self.engine, self.place(split), self.config)

    def place(self, split: Split) -> Path:
        """The folder or file of `split`."""
        return self._folders.train if split == "train" else self._folders.val

    def _source(self, split: Split) -> FilesSource | BetonReader:
        path = self.place(split)
        return open_folder(path) if path.is_dir() else BetonReader(path)
