"""Speed of augmentation of whole batches against timm's and torchvision's, which go image by image.

python -m benchmarks.tricks.augmentation --json FILE

All run interleaved in one process on the CPU, with equally many threads. timm and torchvision begin and end with
Pillow's images, or with uint8 tensors; the conversion is not counted. Random erasing writes noise here, torchvision's
one value. Ctrl-C keeps the results so far.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from torch import Tensor
from torchvision.transforms import v2

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Rounds, Window, interleave
from benchmarks.harness.options import WindowOptions, check_least
from benchmarks.harness.records import Interruption, command, record
from benchmarks.tricks.report import augmentation_table
from fixres.augment.batch_transform import BatchTransform
from fixres.config.augment import AugmentConfig
from fixres.pipelines.runtime.exit_codes import run
from fixres.training.step_speed import resident_batch, timed_steps

_RAND, _OURS = "rand-m6-mstd0.5-inc1", "fixres"
_ERASING = {"re_prob": 0.25, "re_mode": "pixel"}
_BILINEAR = v2.InterpolationMode.BILINEAR
_NOTE = "Whole batches against image by image, threads: {threads}; {rounds} interleaved rounds."


@dataclass(frozen=True)
class Library:
    """The same augmentation, of one image; `tensors`: of uint8 CHW tensors, else of Pillow's images."""

    apply: Callable[[Any], Any]
    tensors: bool = False


LIBRARIES: dict[str, tuple[dict[str, Any], dict[str, Callable[[], Library]]]] = {
    "RandAugment": ({"auto_augment": _RAND}, {"timm": lambda: Library(rand_augment_transform(_RAND, {}))}),
    "TrivialAugmentWide": (
        {"auto_augment": "ta_wide"},
        {
            "torchvision": lambda: Library(v2.TrivialAugmentWide(interpolation=_BILINEAR)),
            "torchvision, tensors": lambda: Library(v2.TrivialAugmentWide(interpolation=_BILINEAR), tensors=True),
        },
    ),
    "AutoAugment": ({"auto_augment": "original"}, {"timm": lambda: Library(auto_augment_transform("original", {}))}),
    "3-Augment": ({"auto_augment": "3a"}, {"timm": lambda: Library(auto_augment_transform("3a", {}))}),
    "ColorJitter": (
        {"color_jitter": 0.3},
        {"torchvision": lambda: Library(v2.ColorJitter(0.3, 0.3, 0.3))},
    ),
    "random erasing": (
        _ERASING,
        {"torchvision, tensors": lambda: Library(v2.RandomErasing(0.25, (0.02, 1 / 3), value=0), tensors=True)},
    ),
}
"""By augmentation: settings of `AugmentConfig`, and the same by others."""


@dataclass(frozen=True, kw_only=True)
class AugmentationOptions(WindowOptions):
    """Options of the benchmark."""

    batch_size: int = 64
    """Images of a batch."""
    train_res: int = 128
    """Their side in pixels."""
    num_threads: int = 1
    """Threads of each."""
    rounds: int = 7
    seconds: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, num_threads=1)


def measure(options: AugmentationOptions) -> dict[str, Any]:
    """Measures all augmentations and rounds; returns the record."""
    images, labels = resident_batch(options.batch_size, options.train_res, torch.device("cpu"))
    environment, results, threads = conditions(), [], options.num_threads
    with Interruption() as interruption, ThreadPoolExecutor(threads) as pool:
        for name, (settings, libraries) in LIBRARIES.items():
            steps = {_OURS: _batches(settings, images, labels, threads)}
            steps |= {library: _image_by_image(make(), images, pool) for library, make in libraries.items()}
            rounds = _interleaved(steps, options, name)
            if rounds.num_rounds:
                found = [{"library": one, **rounds.relative(one, _OURS)} for one in steps]
                results.append({"augmentation": name, "libraries": found})
            if rounds.interrupted:
                raise KeyboardInterrupt
    note = _NOTE.format(threads=threads, rounds=options.rounds)
    return record("augmentation", options.settings(), environment, note, interruption.happened, results=results)


def _interleaved(steps: dict[str, Callable[[], int]], options: AugmentationOptions, title: str) -> Rounds:
    for step in steps.values():
        step()  # compiles
    cpu = torch.device("cpu")
    runs = {name: lambda step=step: Window(*timed_steps(step, cpu, options.seconds)) for name, step in steps.items()}
    return interleave(runs, options.rounds, title)


def _batches(settings: dict[str, Any], images: Tensor, labels: Tensor, threads: int) -> Callable[[], int]:
    transform, numbers = BatchTransform(AugmentConfig(**settings), 1000, 0), iter(range(10**9))

    def step() -> int:
        torch.set_num_threads(threads)
        transform(images, labels, next(numbers))
        return len(images)

    return step


def _image_by_image(library: Library, images: Tensor, pool: ThreadPoolExecutor) -> Callable[[], int]:
    separate = [image.permute(2, 0, 1).contiguous() if library.tensors else Image.fromarray(image.numpy())
                for image in images]  # fmt: skip

    def step() -> int:
        torch.set_num_threads(1)  # the pool has the threads
        for _ in pool.map(library.apply, separate):
            pass
        return len(separate)

    return step


main = command(AugmentationOptions, __doc__, measure, augmentation_table)


if __name__ == "__main__":
    run(main)
