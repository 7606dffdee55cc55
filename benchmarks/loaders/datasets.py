"""Data sets in a DataLoader: torchvision's ImageFolder against fixres.CropDataset and, with threads, fixres.Loader.

python -m benchmarks.loaders.datasets --data PHOTOS [--train-res 128] [--num-workers 2] [--json FILE]

All deliver normalized training batches: RandomResizedCrop of scale (0.08, 1), flip, torchvision's ToTensor and
Normalize. The DataLoaders have the same workers and the same transforms, except that ImageFolder's begin with
RandomResizedCrop. ImageFolder and the row "CropDataset, folder" read JPEG files, the others a RoC file of them. A
window is an epoch; rounds are interleaved.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

import fixres
from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Window, interleave
from benchmarks.harness.options import PhotoOptions, RoundOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.loaders.tables import datasets_table
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.runtime.process_pool import end_with_parent, main_module_hidden, safe_context
from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD

REFERENCE = "ImageFolder"


@dataclass(frozen=True, kw_only=True)
class DatasetsOptions(PhotoOptions, RoundOptions):
    """Options of the benchmark."""

    rounds: int = 10
    """Interleaved rounds; an engine works through two epochs in each."""
    train_res: list[int] = field(default_factory=lambda: [128])
    """Sides of the training crops in pixels."""
    batch_size: int = 64
    """Images of a batch."""
    num_workers: int = 2
    """Worker processes of each DataLoader, threads of fixres.Loader."""
    views: int = 2
    """Crops of each image in the rows "views"."""


def measure(options: DatasetsOptions) -> dict[str, Any]:
    """Measures all resolutions; returns the record."""
    files = options.files()
    folder, roc = files.path("folder"), files.path("roc")
    environment, results = conditions(roc), []
    with Interruption() as interruption:
        for resolution in options.train_res:
            with _opened(folder, roc, resolution, options) as engines:
                runs = {name: _epochs(batches, options.num_images) for name, batches in engines.items()}
                for epoch in runs.values():
                    epoch()  # starts workers, compiles kernels
                rounds = interleave(runs, options.rounds, f"{resolution} px")
            rows = [{"name": name, "res": resolution} | rounds.relative(name, REFERENCE) for name in runs]
            results += rows if rounds.num_rounds else []
            if rounds.interrupted:
                raise KeyboardInterrupt
    note = f"{options.num_workers} workers or threads each; {options.rounds} interleaved rounds; medians."
    return record("datasets", options.settings(), environment, note, interruption.happened, results=results)


@contextmanager
def _opened(folder: Path, roc: Path, resolution: int, options: DatasetsOptions) -> Iterator[dict[str, Iterable]]:
    after = [
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    crop, rest = transforms.RandomResizedCrop(resolution), transforms.Compose(after)

    def crops(path: Path, views: int = 1) -> DataLoader:
        return _loader(fixres.CropDataset(path, resolution, transform=rest, output_type="pil", views=views), options)

    threads = {"batch_size": options.batch_size, "num_workers": options.num_workers, "device": "cpu"}
    with closing(fixres.Loader(roc, resolution, drop_last=False, **threads)) as loader:
        yield {
            REFERENCE: _loader(ImageFolder(str(folder), transforms.Compose([crop, *after])), options),
            "CropDataset, folder": crops(folder),
            "CropDataset, RoC": crops(roc),
            f"CropDataset, RoC, {options.views} views": crops(roc, options.views),
            "fixres.Loader, RoC": loader,
        }


def _loader(data: Dataset, options: DatasetsOptions) -> DataLoader:
    num, more = options.num_workers, {}
    if num:
        more = {
            "multiprocessing_context": safe_context(),
            "persistent_workers": True,
            "worker_init_fn": end_with_parent,
        }
    return DataLoader(data, options.batch_size, shuffle=True, num_workers=num, **more)


def _epochs(batches: Iterable, num_images: int) -> Callable[[], Window]:
    """A function that works through an epoch."""

    def epoch() -> Window:
        began, seen = time.perf_counter(), 0
        with main_module_hidden():
            running = iter(batches)
        for _, labels in running:
            seen += len(labels)
        assert seen == num_images
        return Window(seen, time.perf_counter() - began)

    return epoch


main = command(DatasetsOptions, __doc__, measure, datasets_table)


if __name__ == "__main__":
    torch.set_num_threads(1)  # workers and threads have the cores
    run(main)
