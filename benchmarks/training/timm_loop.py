"""timm's training loop with timm's loader and with ours: accuracies over seeds, in interleaved trainings.

python -m benchmarks.training.timm_loop --data FOLDER [--json benchmarks/results/timm_loop.json]

FOLDER holds train/ and val/ with a folder of images for each class. The loop is that of timm's train.py with timm's
parts: network, `create_optimizer_v2`, cosine schedule, RandAugment, FastCollateMixup (mixup and CutMix), random
erasing, `ModelEmaV3`. Only the training loader differs: "timm" reads the image files, "fixres.timm" a RoC file of them;
each decodes in the same number of worker processes. Both are tested with timm's own test loader on the image files.
Trainings alternate, seed by seed, and Ctrl-C keeps those that are finished.

RandAugment has magnitude 6: from 9 on, timm's PosterizeIncreasing sometimes asks Pillow for 0 bits, which Pillow 13
refuses. With rand-m6-mstd0.5 that would need a deviation of eight sigma.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import timm.data
import torch
from timm.data.mixup import FastCollateMixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, accuracy, random_seed
from torch import nn

import fixres.timm
from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import WORK_DIR, ComputeOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.training.tables import timm_loop_table
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.observability.console import log
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError

_AUGMENTATION = {
    "auto_augment": "rand-m6-mstd0.5-inc1",
    "re_prob": 0.25,
    "re_mode": "pixel",
    "interpolation": "bilinear",
}
_MIXING = {"mixup_alpha": 0.1, "cutmix_alpha": 1.0, "prob": 0.5, "label_smoothing": 0.1}
_OPTIMIZER = {"opt": "sgd", "momentum": 0.9, "weight_decay": 5e-4}
_EMA_DECAY, _WARMUP_EPOCHS = 0.99, 1  # a few hundred steps: the usual 0.9998 would average nearly all of them


@dataclass(frozen=True, kw_only=True)
class TimmLoopOptions(ComputeOptions):
    """Options of the benchmark."""

    data: Path
    """A folder with train/ and val/."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """Seeds of weights, order, crops and augmentation."""
    model: str = "resnet14t"
    """timm's name of the network."""
    model_kwargs: dict[str, Any] = field(default_factory=lambda: {"channels": [16, 32, 64, 128], "stem_width": 16})
    """Arguments of timm.create_model that shape it; by default 0.5 million weights, as in recipe photos."""
    train_res: int = 64
    """Side of the training crops in pixels."""
    test_res: int = 96
    """Side of the test crops in pixels."""
    scale: tuple[float, float] = (0.25, 1.0)
    """Range of the crop's area as a share of the image's area."""
    epochs: int = 8
    """Passes over the training images."""
    batch_size: int = 64
    """Images of a batch."""
    lr: float = 0.1
    """Peak learning rate for this batch."""
    num_workers: int = 2
    """Worker processes of each loader; 0 decodes in the training process."""
    work_dir: Path = WORK_DIR
    """Folder for the converted file, which is kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in ("train", "val"):
            if not (self.data / split).is_dir():
                raise InputError(f"--data {self.data}: it has no folder {split}; give a folder with train and val")


def measure(options: TimmLoopOptions) -> dict[str, Any]:
    """Trains once for each seed and loader; returns the record."""
    precision = choose_precision(options.precision, choose_device(options.device))
    environment, results = conditions(options.data, "warm", precision), []
    loaders = _train_loaders(options, precision.device)
    with Interruption() as interruption:
        for seed in options.seeds:
            for name, open_loader in loaders.items():
                random_seed(seed, 0)
                results.append({"loader": name, "seed": seed} | _train(options, open_loader(), precision))
                log(f"{name}, seed {seed}: top1 {results[-1]['top1']:.1%}")
    note = (
        f"{options.model}, {options.epochs} epochs at {options.train_res} px, tested at {options.test_res} px; "
        f"{_AUGMENTATION['auto_augment']}, mixup, CutMix, random erasing, EMA; n = {len(options.seeds)} seeds."
    )
    return record("timm_loop", options.settings(), environment, note, interruption.happened, results=results)


def _train_loaders(options: TimmLoopOptions, device: torch.device) -> dict[str, Callable[[], Any]]:
    """For each row of the table a function that opens its training loader."""
    folder = options.data / "train"
    file = options.work_dir / f"{folder.resolve().parent.name}-train.beton"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        convert(folder, file, ConversionConfig("roc"))
    shared = {**_AUGMENTATION, "input_size": (3, options.train_res, options.train_res), "is_training": True}
    shared |= {"batch_size": options.batch_size, "scale": options.scale, "num_workers": options.num_workers}
    shared |= {"color_jitter": None, "persistent_workers": False, "device": device}

    def collate() -> FastCollateMixup:
        return FastCollateMixup(num_classes=_num_classes(options), **_MIXING)

    def ours() -> Any:
        dataset = fixres.timm.create_dataset("", root=file, split="train", is_training=True)
        return fixres.timm.create_loader(dataset, collate_fn=collate(), **shared)

    return {
        "timm": lambda: timm.data.create_loader(_timm_dataset(folder), collate_fn=collate(), **shared),
        "fixres.timm": ours,
    }


def _num_classes(options: TimmLoopOptions) -> int:
    return len(_timm_dataset(options.data / "train").reader.class_to_idx)


def _timm_dataset(folder: Path) -> Any:
    return timm.data.create_dataset("", root=str(folder))


def _train(options: TimmLoopOptions, loader: Any, precision: Precision) -> dict[str, Any]:
    """The loop of timm's train.py; returns accuracies, the last epoch's loss, and the seconds without the test."""
    net = timm.create_model(options.model, num_classes=_num_classes(options), **options.model_kwargs)
    net.to(precision.device, memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(net, lr=options.lr, **_OPTIMIZER)
    schedule = {"warmup_epochs": _WARMUP_EPOCHS, "step_on_epochs": False, "updates_per_epoch": len(loader)}
    scheduler, _ = create_scheduler_v2(optimizer, num_epochs=options.epochs, **schedule)
    ema, criterion, num_updates = ModelEmaV3(net, decay=_EMA_DECAY, use_warmup=True), SoftTargetCrossEntropy(), 0
    began, num_images, loss_sum = time.perf_counter(), 0, 0.0
    scheduler.step_update(0)
    for _ in range(options.epochs):
        net.train()
        loss_sum = 0.0
        for images, targets in loader:
            with precision.autocast():
                loss = criterion(net(images.contiguous(memory_format=torch.channels_last)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            num_updates, num_images = num_updates + 1, num_images + len(images)
            ema.update(net, step=num_updates)
            scheduler.step_update(num_updates)
            loss_sum += loss.item()
    seconds = time.perf_counter() - began
    top1, without = _top1([ema.module, net], options, precision)
    return {
        "top1": top1,
        "top1_without_ema": without,
        "loss": loss_sum / len(loader),
        "num_images": num_images,
        "train_seconds": seconds,
    }


@torch.inference_mode()
def _top1(networks: list[nn.Module], options: TimmLoopOptions, precision: Precision) -> list[float]:
    """The accuracies of networks with timm's test loader, fractions."""
    dataset = _timm_dataset(options.data / "val")
    size = (3, options.test_res, options.test_res)
    settings = {"num_workers": options.num_workers, "persistent_workers": False, "device": precision.device}
    correct = [0.0] * len(networks)
    for images, labels in timm.data.create_loader(dataset, size, options.batch_size, **settings):
        for i, net in enumerate(networks):
            with precision.autocast():
                (percent,) = accuracy(net.eval()(images).float(), labels)
            correct[i] += percent.item() / 100 * len(labels)
    return [num / len(dataset) for num in correct]


main = command(TimmLoopOptions, __doc__, measure, timm_loop_table)


if __name__ == "__main__":
    run(main)
