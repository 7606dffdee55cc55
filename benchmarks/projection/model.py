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

import numpy as np

from fixres.pipelines.spec import InputError

Schedule = tuple[tuple[int, int], ...]
"""(resolution in pixels, epochs) of each part of a run, in order."""
Speeds = Mapping[int, float]
"""Images/s by resolution in pixels."""


@dataclass(frozen=True)
class Phase:
    """Some epochs at one resolution."""

    name: str  # "train" or "finetune"
    resolution: int  # pixels
    epochs: int  # how many
    seconds: float  # for all of them
    limit: str  # "network" or "loader", whichever is slower

    def text(self) -> str:
        """A line for the terminal."""
        return (
            f"  {self.name:8} {self.epochs:3d} epochs at {self.resolution:3d} px  {self.seconds / 3600:9.2f} h"
            f"  limited by the {self.limit}"
        )


def phases(
    gpus: int, cores: int, step: Speeds, loader: Speeds, num_images: int, schedule: Schedule, finetune: tuple[int, int]
) -> list[Phase]:
    """The phases of a run.

    Args:
        gpus: number of devices.
        cores: loader cores, over all devices.
        step: speeds of one device in training.
        loader: speeds of one core of the input engine.
        num_images: size of the training set.
        schedule: of the training.
        finetune: (resolution, epochs) of the fine-tuning; 0 epochs for none.
    """
    parts = [("train", 1, *part) for part in schedule] + [("finetune", 3, *finetune)] * (finetune[1] > 0)
    found = []
    for name, lighter, side, epochs in parts:
        network = lighter * gpus * at_resolution(step, side, by_pixels=True)
        loading = cores * at_resolution(loader, side, by_pixels=False)
        seconds = epochs * num_images / min(network, loading)
        found.append(Phase(name, side, epochs, seconds, "network" if network <= loading else "loader"))
    return found


def at_resolution(speeds: Speeds, resolution: int, by_pixels: bool) -> float:
    """The speed at a resolution, interpolated or extrapolated from measured speeds as the module describes."""
    if not speeds:
        raise InputError(
            "no measured speed to project from; run benchmarks.throughput and benchmarks.training.train_step"
        )
    known = sorted(speeds)
    nearest = min(max(resolution, known[0]), known[-1])
    if nearest in speeds:  # exactly what was measured
        return speeds[nearest] * ((nearest / resolution) ** 2 if by_pixels else 1.0)
    return math.exp(np.interp(math.log(resolution), np.log(known), np.log([speeds[side] for side in known])))


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
