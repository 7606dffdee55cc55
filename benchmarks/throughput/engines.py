"""The engines of the throughput benchmark: ours, third-party loaders, and the decode-only bound."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixres.pipelines.crop_index.building import IndexingConfig, build_index
from fixres.pipelines.loaders import ENGINES, is_installed, open_loader
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import InputError, LoaderConfig, TrainCrop

_SEED = 0
DECODE_BOUND = "decode-only bound"
KINDS = {
    "roc": "roc",
    "roc-index": "folder",
    "roc-coarse": "coarse",
    "roc-gpu": "roc",
    "roc-dali": "roc",
    "ffcv": "ffcv",
    "ffcv-raw": "raw",
    "dali": "folder",
    "dali-slice": "folder",
    "torch": "folder",
    "torchvision": "folder",
    "torchvision-gpu": "folder",
    "simplejpeg": "folder",
    "torchcodec": "folder",
    "turboloader": "tar",
    "dali-dynamic": "folder",
    "spdl": "folder",
    "webdataset": "shards",
}
"""Which format of `benchmarks.harness.datasets.BenchmarkFiles` each engine reads."""
_PUBLISHED = {"folder": "published", "coarse": "published_coarse", "tar": "published_tar"}
INDEXED = ("roc-index", "roc-coarse")
"""Engine roc on untouched files."""
THIRD_PARTY = "third-party"
"""In a list of engines: third-party loaders for CPUs, as many as are installed."""
_FOR_CPUS = ("ffcv", "ffcv-raw", "dali", "dali-dynamic", "torchvision", "simplejpeg", "torchcodec", "turboloader")
_PACKAGES = {name: name for name in ("simplejpeg", "torchcodec", "turboloader", "spdl", "webdataset")} | {
    "dali-dynamic": "nvidia.dali.experimental.dynamic"
}


@dataclass(frozen=True)
class Engine:
    """An engine and its settings."""

    name: str  # of `KINDS`, or `DECODE_BOUND`
    path: Path  # its data
    batch_size: int  # images
    num_threads: int  # threads or worker processes
    device: str  # where batches arrive

    def open(self) -> Any:
        """A loader with `set_epoch`, `set_resolution`, iteration over batches, `counters` (or None) and `close`."""
        if self.name == DECODE_BOUND:
            from benchmarks.throughput.decode_only import DecodeOnly

            return DecodeOnly(self.path, self.num_threads)
        options = {"shuffle": True, "drop_last": True, "seed": _SEED, "num_workers": self.num_threads}
        config = LoaderConfig(self.path, TrainCrop(), 128, self.batch_size, device=self.device, **options)
        if self.name in INDEXED:
            build_index(open_stored(self.path), IndexingConfig(coarse=self.name == "roc-coarse"))
        if _engine_of(self.name) in ENGINES:
            return open_loader(_engine_of(self.name), config)
        from benchmarks.throughput.third_party import LOADERS

        return LOADERS[self.name](config)


class Stream:
    """An opened engine's batches, epoch after epoch without an end, and their costs."""

    def __init__(self, engine: Engine, resolution: int) -> None:
        self._engine, self._epoch = engine, 0
        self._loader = engine.open()
        self._batches = self._endless()
        self.set_resolution(resolution)

    def set_resolution(self, resolution: int) -> None:
        """Begins a new epoch at another output side in pixels."""
        self._batches.close()
        self._loader.set_resolution(resolution)
        self._batches = self._endless()
        self._before = self._counted()

    def next_batch(self) -> int:
        """Waits for a batch; returns its number of images."""
        return len(self.batch()[1])

    def batch(self) -> Any:
        """Waits for a batch: images, labels, and whatever else its loader gives."""
        return next(self._batches)

    def close(self) -> None:
        """Closes the loader."""
        self._batches.close()
        self._loader.close()

    def epoch(self) -> Iterator[int]:
        """Numbers of images of one epoch's batches."""
        self.end_epoch()
        self._loader.set_epoch(self._epoch)
        self._epoch += 1
        for batch in self._loader:
            yield len(batch[1])

    def end_epoch(self) -> None:
        """Ends the running epoch."""
        self._batches.close()
        self._batches = self._endless()

    def costs(self) -> dict[str, float | None]:
        """Encoded bytes and decoded pixels per image since the resolution was set; None if they are not counted."""
        images, *rest = (None if b is None or a is None else a - b
                         for a, b in zip(self._counted(), self._before, strict=True))  # fmt: skip
        read, pixels = (None if part is None or not images else part / images for part in rest)
        if self._engine.name == "ffcv-raw":
            pixels = 0.0  # it reads pixels and decodes nothing
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


def kind_of(engine: str, published: bool) -> str:
    """Which files an engine reads. Published: loaders of JPEG files read the photographs as they are."""
    kind = KINDS[engine]
    return _PUBLISHED.get(kind, kind) if published else kind


def batches_ahead(num_workers: int) -> int:
    """An upper bound of the batches that an engine prepares ahead: a few, and for torch 4 for each worker."""
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


def with_third_party(engines: list[str]) -> tuple[list[str], list[str]]:
    """The engines with those of "third-party" that are installed in its place, and those that are not."""
    if THIRD_PARTY not in engines:
        return engines, []
    at, missing = engines.index(THIRD_PARTY), [name for name in _FOR_CPUS if not can_run(name)]
    found = [name for name in _FOR_CPUS if name not in missing and name not in engines]
    return [*engines[:at], *found, *engines[at + 1 :]], [name for name in missing if name not in engines]


def can_run(engine: str) -> bool:
    """Whether the engine's package is installed."""
    if engine in _PACKAGES:
        try:
            return importlib.util.find_spec(_PACKAGES[engine]) is not None
        except ModuleNotFoundError:  # of a package above it
            return False
    name = _engine_of(engine)
    return name not in ENGINES or is_installed(name)


def _engine_of(name: str) -> str:
    """The engine of a name that tells which files it reads, too."""
    return "roc" if name in INDEXED else name.removesuffix("-raw")
