"""The formulas: the time of a run from the speeds of training steps and loaders.

    epoch(r)    = images / min(gpus * step(r), cores * loader(r))
    finetune(r) = images / min(gpus * 3 * step(r), cores * loader(r))
    run         = sum of epoch(r) over the schedule + sum of finetune(r) over the epochs of fine-tuning

step(r) is the speed of one device at r px, loader(r) that of one core, both in images/s. Fine-tuning runs the backbone
forward only, which is a third of a step. Between known resolutions both speeds are interpolated in the logarithm of
the pixels. Beyond them the nearest speed is scaled by pixels (steps) or kept (loaders, which is optimistic for larger
crops).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from fixres.pipelines.spec import InputError

FORMULA = (
    "epoch(r) = images / min(devices * step(r), cores * loader(r)); "
    "finetune(r) = images / min(devices * 3 * step(r), cores * loader(r)); a run is the sum over its epochs. "
    "A step of fine-tuning is taken to cost a third of a training step, which is not measured."
)


@dataclass(frozen=True)
class Speeds:
    """Images/s by resolution, of one device or one core."""

    known: Mapping[int, float]  # images/s by resolution in pixels; at least one
    scaled: bool  # whether speeds beyond the known resolutions are scaled by pixels, or kept
    origin: str  # who gave them, or where they were measured

    def __post_init__(self) -> None:
        if not self.known:
            raise InputError("no speed to project from; give images/s at one resolution at least, such as 224:900")
        for side, speed in self.known.items():
            if not 0 < speed < math.inf:  # a NaN fails
                raise InputError(f"{speed:g} images/s at {side} px must be a number above 0")

    def at(self, resolution: int) -> float:
        """Images/s at a resolution: known, interpolated or extrapolated as the module describes."""
        nearest = self._nearest(resolution)
        if nearest in self.known:
            return self.known[nearest] * ((nearest / resolution) ** 2 if self.scaled else 1.0)
        sides = sorted(self.known)
        return math.exp(np.interp(math.log(resolution), np.log(sides), np.log([self.known[side] for side in sides])))

    def times(self, number: int) -> Speeds:
        """The speeds of that many devices or cores."""
        return replace(self, known={side: number * speed for side, speed in self.known.items()})

    def text(self, resolutions: Iterable[int]) -> str:
        """The speeds at some resolutions, with a remark at those that are not known."""
        return ", ".join(f"{self.at(side):.4g} at {side} px{self._remark(side)}" for side in resolutions)

    def _nearest(self, resolution: int) -> int:
        """The resolution, or the end of the known range that is nearest to it."""
        return min(max(resolution, min(self.known)), max(self.known))

    def _remark(self, resolution: int) -> str:
        if resolution in self.known:
            return ""
        nearest = self._nearest(resolution)
        how = "scaled by pixels" if self.scaled else "taken"
        return " (interpolated)" if nearest == resolution else f" ({how} from {nearest} px)"


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
    network: Speeds, loader: Speeds, num_images: int, schedule: Mapping[int, int], finetune: tuple[int, int]
) -> list[Phase]:
    """The phases of a run.

    Args:
        network: speeds of all devices in training.
        loader: speeds of all loader cores.
        num_images: size of the training set.
        schedule: epochs of the training by resolution in pixels, in order.
        finetune: (resolution, epochs) of the fine-tuning; 0 epochs for none.
    """
    parts = [("train", 1, *part) for part in schedule.items()] + [("finetune", 3, *finetune)] * (finetune[1] > 0)
    found = []
    for name, lighter, side, epochs in parts:
        computing, loading = lighter * network.at(side), loader.at(side)
        seconds = epochs * num_images / min(computing, loading)
        found.append(Phase(name, side, epochs, seconds, "network" if computing <= loading else "loader"))
    return found
