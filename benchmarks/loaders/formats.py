"""The same photographs in each form that loaders read: bytes, preparation, first batch, images/s, fidelity.

python -m benchmarks.loaders.formats --data PHOTOS --train-res 128,160,224 --json FILE

The untouched files are read by engine roc with an index, by DALI and by torchvision's DataLoader. The other forms are
made from them, at most --max-side large: RoC, FFCV's JPEG file, FFCV's file of raw pixels. Each preparation is timed
once, in an empty folder. Images/s are training crops, in interleaved rounds, as `benchmarks.throughput` measures them.
Fidelity compares center crops with those of Pillow from the untouched files.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.records import command
from benchmarks.loaders.tables import FORMS, formats_table
from benchmarks.throughput.engines import INDEXED, check_engines, kind_of
from benchmarks.throughput.run import ThroughputOptions
from benchmarks.throughput.run import measure as throughput
from fixres.pipelines.crop_index.building import IndexingConfig, build_index
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import EvalCrop, InputError, LoaderConfig

_ENGINE = {"torchvision": "torch", "ffcv-raw": "ffcv"} | dict.fromkeys(INDEXED, "roc")
"""Which engine makes center crops of the same files."""


@dataclass(frozen=True, kw_only=True)
class FormatsOptions(ThroughputOptions):
    """Options of the benchmark; see `benchmarks.throughput`."""

    engines: list[str] = field(default_factory=lambda: list(FORMS))
    """Forms to compare, by the engine that reads them."""
    rounds: int = 12
    num_images: int = 500
    """Photographs, the first ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := [engine for engine in self.engines if engine not in FORMS]:
            raise InputError(f"engines={','.join(unknown)}: choose from {', '.join(FORMS)}")
        check_engines(self.engines)


def measure(options: FormatsOptions) -> dict[str, Any]:
    """Measures all forms; returns the record."""
    options.work_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.work_dir) as folder:
        options = replace(options, work_dir=Path(folder), jpeg_files="published")
        files = options.files()
        prepared = {engine: _prepare(engine, files) for engine in options.engines}
        content = throughput(options)  # type: ignore[arg-type]
        fidelity = [] if content["partial"] else _fidelity(options, files)
    content["name"] = "formats" if options.json is None else content["name"]
    return content | {"kind": "formats", "preparation_seconds": prepared, "fidelity": fidelity}


def _prepare(engine: str, files: BenchmarkFiles) -> float | None:
    """Makes the files that an engine reads; returns the seconds, or None if it reads the untouched ones."""
    kind = kind_of(engine, published=True)
    if kind == "published" and engine not in INDEXED:
        return None
    files.path("published")
    begin = time.perf_counter()
    path = files.path(kind)
    if engine in INDEXED:
        build_index(open_stored(path), IndexingConfig(coarse=engine == "roc-coarse"))
    return time.perf_counter() - begin


def _fidelity(options: FormatsOptions, files: BenchmarkFiles) -> list[dict[str, Any]]:
    """PSNR of each engine's center crops at each resolution, in dB."""
    found = []
    for side in options.train_res:
        wanted = _center_crops("torch", files.path("published"), side)
        for engine in options.engines:
            got = _center_crops(_ENGINE.get(engine, engine), files.path(kind_of(engine, published=True)), side)
            squares = ((got.astype(np.float32) - wanted) ** 2).mean((1, 2, 3))
            psnr = 10 * np.log10(255**2 / np.maximum(squares, 1e-6))
            figures = {"mean_psnr": float(psnr.mean()), "psnr_5th_percentile": float(np.percentile(psnr, 5))}
            found.append({"engine": engine, "res": side, **figures})
    return found


def _center_crops(engine: str, path: Path, side: int) -> np.ndarray:
    """uint8 (N, r, r, 3), sorted by class, and within it as stored: files in folders are in another order."""
    with open_loader(engine, LoaderConfig(path, EvalCrop(), side, 50, num_workers=2)) as loader:
        images, labels = zip(*((batch.images.numpy().copy(), batch.labels.numpy()) for batch in loader), strict=True)
    return np.concatenate(images)[np.argsort(np.concatenate(labels), kind="stable")]


main = command(FormatsOptions, __doc__, measure, formats_table)

if __name__ == "__main__":
    run(main)
