"""From a `DataConfig` to loaders: find or make the images, store them as the engine reads them, open splits."""

from __future__ import annotations

import time
from typing import Any, Literal

from pipelines.loaders import open_loader
from pipelines.prepare import find_data, stored_for
from pipelines.spec import DataConfig, Loader, LoaderConfig


def choose_engine(name: str) -> str:
    """`name`, or for "auto" the fastest engine: benchmarks/results/throughput.json."""
    return "roc" if name == "auto" else name


class PreparedData:
    """Images found and stored as one engine reads them; calling it opens a loader of a split.

    Args:
        config: which images, which engine.
        device: where batches arrive, "cpu" or "cuda[:n]".

    Attributes:
        engine: name of the engine.
        prepare_seconds: what finding, making and converting took in this process.
    """

    def __init__(self, config: DataConfig, device: str) -> None:
        start = time.perf_counter()
        self.config, self.device = config, device
        self.engine = choose_engine(config.engine)
        self._folders = find_data(config.path, config.work_dir, config.seed)
        self._stored = {
            split: stored_for(self.engine, folder, config.work_dir, config.max_side, config.quality, config.num_workers)
            for split, folder in (("train", self._folders.train), ("val", self._folders.val))
        }
        self.prepare_seconds = time.perf_counter() - start

    def __call__(self, split: Literal["train", "val"], **fields: Any) -> Loader:
        """A loader of `split`; `fields` are those of LoaderConfig that `DataConfig` does not settle."""
        config = LoaderConfig(
            path=self._stored[split],
            num_workers=self.config.num_workers,
            device=self.device,
            on_bad=self.config.on_bad,
            min_zoom=self.config.min_zoom,
            **fields,
        )
        return open_loader(self.engine, config)

    def describe(self) -> dict[str, Any]:
        """What a report says of the data."""
        return {
            "path": self.config.path,
            "engine": self.engine,
            "classes": list(self._folders.classes),
            "prepare_seconds": self.prepare_seconds,
        }
