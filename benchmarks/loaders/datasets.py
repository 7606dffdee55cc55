"""Data sets in a DataLoader: torchvision's ImageFolder against fixres.CropDataset and, with threads, fixres.Loader.

python -m benchmarks.loaders.datasets --data PHOTOS [--train-res 128] [--num-workers 2] [--multi-crop] [--json FILE]

All deliver normalized training batches: RandomResizedCrop of scale (0.08, 1), flip, torchvision's ToTensor and
Normalize. The DataLoaders have the same workers and the same transforms, except that ImageFolder's begin with
RandomResizedCrop. ImageFolder and the rows "CropDataset, folder" read JPEG files: encoded again like those in the RoC
file, or as they were published. The others read the RoC file. With --multi-crop all make DINO's ten crops of each
image. A window is an epoch; rounds are interleaved.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

import fixres
from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Rounds, Window, interleave
from benchmarks.harness.options import PhotoOptions, RoundOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.loaders.tables import datasets_table
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.runtime.process_pool import end_with_parent, main_module_hidden, safe_context
from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD

REFERENCE = "ImageFolder"
VIEWS = [(2, 224, (0.4, 1.0)), (8, 96, (0.05, 0.4))]
MULTI_CROP = "2 x 224 + 8 x 96"


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
    jpeg_files: list[Literal["encoded", "published"]] = field(default_factory=lambda: ["encoded", "published"])
    """JPEG files that ImageFolder reads: "encoded" with --max-side and --quality, or the "published" ones of --data."""
    multi_crop: bool = False
    """Also measure 2 crops of 224 and 8 of 96 pixels of each image (DINO, arXiv 2104.14294)."""


def measure(options: DatasetsOptions) -> dict[str, Any]:
    """Measures all resolutions; returns the record."""
    files = options.files()
    roc, environment, results = files.path("roc"), conditions(files.path("roc")), []
    comparisons = [(resolution, kind) for resolution in options.train_res for kind in options.jpeg_files]
    comparisons += [(MULTI_CROP, "encoded")] if options.multi_crop else []
    with Interruption() as interruption:
        for resolution, kind in comparisons:
            folder = files.path("folder" if kind == "encoded" else "published")
            make = _multi_crop if resolution == MULTI_CROP else _opened
            with make(folder, roc, resolution, options) as engines:
                runs = {name: _epochs(batches, options.num_images) for name, batches in engines.items()}
                for epoch in runs.values():
                    epoch()  # starts workers, compiles kernels
                rounds = interleave(runs, options.rounds, f"{resolution} px, {kind}")
            rows = [{"name": name, "res": resolution, "jpeg_files": kind} | _speeds(rounds, name) for name in runs]
            results += rows if rounds.num_rounds else []
            if rounds.interrupted:
                raise KeyboardInterrupt
    note = f"{options.num_workers} workers or threads each; {options.rounds} interleaved rounds; medians."
    return record("datasets", options.settings(), environment, note, interruption.happened, results=results)


def _speeds(rounds: Rounds, name: str) -> dict[str, Any]:
    single, _, views = name.rpartition(", ")
    cost = {}
    if views.endswith("views"):
        cost = rounds.ratio(single, name).as_json("cost_of_views", "cost_of_views_interval")
    return rounds.relative(name, REFERENCE) | cost


def _after() -> list[Any]:
    normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    return [transforms.RandomHorizontalFlip(), transforms.ToTensor(), normalize]


def _threads(options: DatasetsOptions) -> dict[str, Any]:
    return {"batch_size": options.batch_size, "num_workers": options.num_workers, "device": "cpu", "drop_last": False}


@contextmanager
def _opened(folder: Path, roc: Path, resolution: int, options: DatasetsOptions) -> Iterator[dict[str, Iterable]]:
    crop, rest = transforms.RandomResizedCrop(resolution), transforms.Compose(_after())

    def crops(path: Path, views: int = 1) -> DataLoader:
        return _loader(fixres.CropDataset(path, resolution, transform=rest, output_type="pil", views=views), options)

    num = options.views
    with ExitStack() as stack:
        loaders = [fixres.Loader(roc, resolution, views=views, **_threads(options)) for views in (1, num)]
        single, several = (stack.enter_context(closing(loader)) for loader in loaders)
        yield {
            REFERENCE: _loader(ImageFolder(str(folder), transforms.Compose([crop, *_after()])), options),
            "CropDataset, folder": crops(folder),
            f"CropDataset, folder, {num} views": crops(folder, num),
            "CropDataset, RoC": crops(roc),
            f"CropDataset, RoC, {num} views": crops(roc, num),
            "fixres.Loader, RoC": single,
            f"fixres.Loader, RoC, {num} views": several,
        }


class _EachCrop:
    """torchvision's way to several crops: a transform that returns a list of them."""

    def __init__(self, steps: list[Callable[[Any], Any]]) -> None:
        self._steps = steps

    def __call__(self, image: Any) -> list[Any]:
        return [step(image) for step in self._steps]


@contextmanager
def _multi_crop(folder: Path, roc: Path, _: str, options: DatasetsOptions) -> Iterator[dict[str, Iterable]]:
    steps = [
        transforms.Compose([transforms.RandomResizedCrop(side, scale), *_after()])
        for num, side, scale in VIEWS
        for _ in range(num)
    ]
    rest = transforms.Compose(_after())
    dataset = fixres.CropDataset(roc, 224, transform=rest, output_type="pil", views=VIEWS)
    with closing(fixres.Loader(roc, 224, views=VIEWS, **_threads(options))) as loader:
        yield {
            REFERENCE: _loader(ImageFolder(str(folder), _EachCrop(steps)), options),
            "CropDataset, RoC": _loader(dataset, options),
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
