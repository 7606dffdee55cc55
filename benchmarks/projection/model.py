"""Projects the time of a run from measured speeds of training steps and loaders. Nothing here is a measurement.

    epoch(r)    = images / min(gpus * step(r), cores * loader(r))
    finetune(r) = images / min(gpus * 3 * step(r), cores * loader(r))
    run         = sum of epoch(r) over the schedule + sum of finetune(r) over the epochs of fine-tuning

step(r) is the speed of one device at r px, loader(r) that of one core, both in images/s. Fine-tuning runs the backbone
forward only, which is a third of a step. Between measured resolutions both speeds are interpolated in the logarithm of
the pixels. Beyond them the nearest speed is scaled by pixels (steps) or kept (loaders, which is optimistic for larger
crops).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.spec import InputError

Schedule = tuple[tuple[int, int], ...]
"""(resolution in pixels, epochs) of each part of a run, in order."""


@dataclass(frozen=True)
class Machine:
    """The machine of a run.

    Attributes:
        gpus: number of devices.
        cores: loader cores, over all devices.
        step: images/s of one device in training, by resolution in pixels.
        loader: images/s of one core of the input engine, by resolution.
    """

    gpus: int
    cores: int
    step: Mapping[int, float]
    loader: Mapping[int, float]

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.cores < 1:
            raise InputError(f"gpus={self.gpus} and cores={self.cores} must be at least 1")


@dataclass(frozen=True)
class Phase:
    """Some epochs at one resolution.

    Attributes:
        name: "train" or "finetune".
        resolution: pixels.
        epochs: how many.
        seconds: for all of them.
        limit: "network" or "loader", whichever is slower.
    """

    name: str
    resolution: int
    epochs: int
    seconds: float
    limit: str

    def text(self) -> str:
        """A line for the terminal."""
        return (
            f"  {self.name:8} {self.epochs:3d} epochs at {self.resolution:3d} px  {self.seconds / 3600:9.2f} h"
            f"  limited by the {self.limit}"
        )


def phases(machine: Machine, num_images: int, schedule: Schedule, finetune: tuple[int, int]) -> list[Phase]:
    """The phases of a run.

    Args:
        machine: number and speed of devices and cores.
        num_images: size of the training set.
        schedule: of the training.
        finetune: (resolution, epochs) of the fine-tuning; 0 epochs for none.
    """
    if num_images < 1 or any(epochs < 1 for _, epochs in schedule) or finetune[1] < 0:
        raise InputError("images and epochs must be positive")
    found = [_phase("train", machine, num_images, part, 1.0) for part in schedule]
    return found + ([_phase("finetune", machine, num_images, finetune, 3.0)] if finetune[1] else [])


def _phase(name: str, machine: Machine, num_images: int, part: tuple[int, int], lighter: float) -> Phase:
    resolution, epochs = part
    network = lighter * machine.gpus * at_resolution(machine.step, resolution, by_pixels=True)
    loader = machine.cores * at_resolution(machine.loader, resolution, by_pixels=False)
    seconds = epochs * num_images / min(network, loader)
    return Phase(name, resolution, epochs, seconds, "network" if network <= loader else "loader")


def at_resolution(speeds: Mapping[int, float], resolution: int, by_pixels: bool) -> float:
    """The speed at a resolution, interpolated or extrapolated from measured speeds as the module describes."""
    if not speeds:
        raise InputError(
            "no measured speed to project from; run benchmarks.throughput and benchmarks.training.train_step"
        )
    known = sorted(speeds)
    if resolution <= known[0] or resolution >= known[-1]:
        nearest = known[0] if resolution <= known[0] else known[-1]
        return speeds[nearest] * ((nearest / resolution) ** 2 if by_pixels else 1.0)
    above = next(side for side in known if side >= resolution)
    below = known[known.index(above) - 1]
    share = math.log(resolution / below) / math.log(above / below)
    return math.exp((1 - share) * math.log(speeds[below]) + share * math.log(speeds[above]))


def steps_of(record: dict[str, Any], model: str) -> dict[int, float]:
    """Images/s of a network by resolution, from a train_step record; empty if the network is not in it."""
    return {one["res"]: one["images_per_second"] for one in record["results"] if one["model"] == model}


def loaders_of(record: dict[str, Any], engine: str) -> dict[int, float]:
    """Images/s of one core by resolution, from a throughput record."""
    threads, results = record["settings"]["threads"], record["results"]
    found = {one["res"]: one["images_per_second"] / threads for one in results if one["engine"] == engine}
    if not found:
        known = ", ".join(sorted({one["engine"] for one in results}))
        raise InputError(f"engine={engine!r} is not in the throughput record; it has {known}")
    return found
