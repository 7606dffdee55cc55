"""What a run will cost: projected from measured step and loader speeds. Nothing here is a measurement.

    epoch(r) = images / min(gpus * step(r), cores * loader(r))
    fix(r)   = images / min(gpus * 3 * step(r), cores * loader(r))
    run      = sum of epoch(r) over the schedule + sum of fix(r) over the epochs of fine-tuning

step(r): images a second of one device at r px; loader(r): of one core. The fix runs the trunk forward only, a third of
a step. Between measured resolutions both are interpolated in the logarithm of the pixels; beyond them the nearest is
scaled by pixels (steps) or kept (loaders, which flatters them where crops are larger).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.spec import InputError


@dataclass(frozen=True)
class Machine:
    """What the run has.

    Attributes:
        gpus: devices.
        cores: for loading, over all devices.
        step: images a second of one device in training, by resolution in pixels.
        loader: images a second of one core of the input engine, by resolution.
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


def phases(
    machine: Machine, num_images: int, schedule: list[tuple[int, int]], finetune: tuple[int, int]
) -> list[Phase]:
    """The phases of a run.

    Args:
        machine: see there.
        num_images: of the training set.
        schedule: (resolution, epochs) in order.
        finetune: (resolution, epochs) of the fine-tuning; 0 epochs for none.
    """
    if num_images < 1 or any(epochs < 1 for _, epochs in schedule) or finetune[1] < 0:
        raise InputError("images and epochs must be positive")
    found = [_phase("train", machine, num_images, resolution, epochs, 1.0) for resolution, epochs in schedule]
    if finetune[1]:
        found.append(_phase("finetune", machine, num_images, *finetune, 3.0))
    return found


def _phase(name: str, machine: Machine, num_images: int, resolution: int, epochs: int, lighter: float) -> Phase:
    network = lighter * machine.gpus * at_resolution(machine.step, resolution, by_pixels=True)
    loader = machine.cores * at_resolution(machine.loader, resolution, by_pixels=False)
    seconds = epochs * num_images / min(network, loader)
    return Phase(name, resolution, epochs, seconds, "network" if network <= loader else "loader")


def at_resolution(speeds: Mapping[int, float], resolution: int, by_pixels: bool) -> float:
    """A speed between measured ones, interpolated in log(pixels); beyond them as the module says."""
    if not speeds:
        raise InputError(
            "no measured speed to project from; run benchmarks.throughput and benchmarks.training.train_step first"
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
    """Images a second by resolution, from a record of benchmarks.training.train_step; empty if it lacks the network."""
    return {one["res"]: one["images_per_second"] for one in record["results"] if one["model"] == model}


def loaders_of(record: dict[str, Any], engine: str) -> dict[int, float]:
    """Images a second of one core by resolution, from a record of benchmarks.throughput."""
    found = {
        one["res"]: one["images_per_second"] / record["settings"]["threads"]
        for one in record["results"]
        if one["engine"] == engine
    }
    if not found:
        known = ", ".join(sorted({one["engine"] for one in record["results"]}))
        raise InputError(f"engine={engine!r} is not in the throughput record; it has {known}")
    return found


def as_text(title: str, found: list[Phase], gpus: int) -> str:
    """A few lines for people."""
    lines = [f"{title}"]
    for phase in found:
        lines.append(
            f"  {phase.name:5} {phase.epochs:3d} epochs at {phase.resolution:3d} px  {phase.seconds / 3600:9.2f} h"
            f"  limited by the {phase.limit}"
        )
    hours = sum(phase.seconds for phase in found) / 3600
    lines.append(f"  projected {hours:.2f} h, {gpus * hours:.1f} device hours")
    return "\n".join(lines)
