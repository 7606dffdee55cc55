"""What the throughput benchmark compares: our engines, the rivals, and the floor."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.loaders import ENGINES, is_installed, open_loader
from pipelines.spec import InputError, LoaderConfig, TrainCrop

_SEED = 0
FLOOR = "floor"
KINDS = {
    "roc": "roc",
    "roc-dali": "roc",
    "ffcv": "ffcv",
    "ffcv-raw": "raw",
    "dali": "folder",
    "dali-slice": "folder",
    "torch": "folder",
    "torchvision": "folder",
    "torchvision-gpu": "folder",
    "spdl": "folder",
    "webdataset": "shards",
}
"""What each engine reads, as `benchmarks.harness.datasets.BenchmarkFiles.path` calls it."""
_PACKAGES = {"spdl": "spdl", "webdataset": "webdataset"}


@dataclass(frozen=True)
class Contender:
    """One engine and how it is opened.

    Attributes:
        engine: of `KINDS`, or `FLOOR`.
        path: its data.
        batch_size: images.
        num_threads: threads or worker processes.
        device: where batches arrive.
    """

    engine: str
    path: Path
    batch_size: int
    num_threads: int
    device: str

    def open(self) -> Any:
        """Something with `set_epoch`, `set_resolution`, iteration over batches, `counters` (or None) and `close`."""
        if self.engine == FLOOR:
            from benchmarks.throughput.decode_only import Floor

            return Floor(self.path, self.num_threads)
        options = {"shuffle": True, "drop_last": True, "seed": _SEED, "num_workers": self.num_threads}
        config = LoaderConfig(self.path, TrainCrop(), 128, self.batch_size, device=self.device, **options)
        if self.engine in ENGINES or self.engine == "ffcv-raw":
            return open_loader(self.engine.removesuffix("-raw"), config)
        from benchmarks.throughput import third_party as rivals

        classes = {
            "torchvision": rivals.StockDataLoader,
            "torchvision-gpu": rivals.BatchedDecodeLoader,
            "webdataset": rivals.WebDatasetLoader,
            "spdl": rivals.SPDLLoader,
        }
        return classes[self.engine](config)


class Stream:
    """An opened contender's batches, epoch after epoch without an end, and what they cost."""

    def __init__(self, contender: Contender, resolution: int) -> None:
        self._contender, self._epoch = contender, 0
        self._loader = contender.open()
        self._batches = self._endless()
        self.set_resolution(resolution)

    def set_resolution(self, resolution: int) -> None:
        """Begins a new epoch at another output side in pixels."""
        self._batches.close()
        self._loader.set_resolution(resolution)
        self._batches = self._endless()
        self._before = self._counted()

    def next_batch(self) -> int:
        """Waits for a batch; returns how many images it has."""
        return len(self.batch()[1])

    def batch(self) -> Any:
        """Waits for a batch: images and labels, and whatever else its loader gives."""
        return next(self._batches)

    def close(self) -> None:
        """Ends the loader."""
        self._batches.close()
        self._loader.close()

    def epoch(self) -> Iterator[int]:
        """Numbers of images of one epoch's batches."""
        self.rest()
        self._loader.set_epoch(self._epoch)
        self._epoch += 1
        for batch in self._loader:
            yield len(batch[1])

    def rest(self) -> None:
        """Ends the running epoch."""
        self._batches.close()
        self._batches = self._endless()

    def costs(self) -> dict[str, float | None]:
        """Encoded bytes and decoded pixels per image since the resolution was set; None where nobody counts."""
        images, *rest = (None if b is None or a is None else a - b
                         for a, b in zip(self._counted(), self._before, strict=True))  # fmt: skip
        read, pixels = (None if part is None or not images else part / images for part in rest)
        if self._contender.engine == "ffcv-raw":
            pixels = 0.0  # nothing is decoded there
        return {"bytes_per_image": read, "pixels_decoded_per_image": pixels}

    def _endless(self) -> Iterator[Any]:
        while True:
            self._loader.set_epoch(self._epoch)
            self._epoch += 1
            yield from self._loader

    def _counted(self) -> tuple[int | None, int | None, int | None]:
        counters = self._loader.counters
        if counters is None:
            return None, None, None
        return counters.num_images, counters.bytes_read, counters.pixels_decoded


def batches_ahead(num_workers: int) -> int:
    """More batches than any engine makes ahead: a few, and for torch 4 for each worker."""
    return 6 + 4 * num_workers


def check_engines(engines: list[str]) -> list[str]:
    """Returns `engines` if all are known and installed, else raises InputError."""
    for engine in engines:
        if engine not in KINDS:
            raise InputError(f"engine={engine!r} cannot be measured; choose from {', '.join(KINDS)}")
        if not can_run(engine):
            package = _PACKAGES.get(engine, "its package")
            raise InputError(f"engine={engine!r} needs {package}, which is not installed; install it or leave it out")
    return engines


def can_run(engine: str) -> bool:
    """Whether what an engine imports is installed."""
    if engine in _PACKAGES:
        return importlib.util.find_spec(_PACKAGES[engine]) is not None
    name = engine.removesuffix("-raw")
    return name not in ENGINES or is_installed(name)
