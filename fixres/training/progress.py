"""The progress of one epoch, its times and its result."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fixres.distributed.process_group import all_reduce, is_main
from fixres.pipelines.spec import Counters


@dataclass(frozen=True)
class EpochResult:
    """The result of one epoch.

    Attributes:
        loss: mean training loss.
        num_images: images trained on.
        seconds: wall time, waiting included.
        wait_seconds: part of it spent waiting for the loader.
        resolution: training resolution in pixels.
    """

    loss: float
    num_images: int
    seconds: float
    wait_seconds: float
    resolution: int


@dataclass
class Progress:
    """What of an epoch is done; a training checkpoint within an epoch contains it.

    Attributes:
        position: images delivered so far, over all processes.
        num_images: images trained on by this process.
        loss_sum: sum of their losses; a tensor on the device while the epoch runs.
        num_skipped: images of steps that loss scaling skipped, not in `loss_sum`; also a tensor.
        seconds: wall time so far.
        wait_seconds: part of it spent waiting for the loader.
    """

    position: int = 0
    num_images: int = 0
    loss_sum: Tensor | float = 0.0
    num_skipped: Tensor | float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    def move_to(self, device: torch.device) -> None:
        """Makes the sums tensors on the device."""
        self.loss_sum, self.num_skipped = (
            torch.as_tensor(value, dtype=torch.float32, device=device) for value in (self.loss_sum, self.num_skipped)
        )

    def add(self, loss: Tensor, num_images: int, may_skip: bool) -> None:
        """Adds a step on the device. Reading the loss here would make the host wait for every step.

        With `may_skip` a loss that is not finite does not count: loss scaling skips that step.
        """
        if may_skip:
            self.num_skipped += ~loss.isfinite() * num_images
            loss = loss.nan_to_num(0.0, 0.0, 0.0)
        self.loss_sum += loss * num_images
        self.num_images += num_images

    def over_processes(self) -> tuple[float, int]:
        """Mean loss and number of images of the epoch so far, over all processes; waits for the device."""
        sums = torch.stack([self.loss_sum, self.num_skipped, self.loss_sum.new_tensor(self.num_images)])
        loss_sum, num_skipped, num_images = all_reduce(sums)
        return (loss_sum / (num_images - num_skipped)).item(), int(num_images)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, sums over all processes; waits for the device. To be called in all processes."""
        sums = [self.num_images, float(self.loss_sum), float(self.num_skipped)]
        num_images, loss_sum, num_skipped = all_reduce(torch.tensor(sums, dtype=torch.float64)).tolist()
        return vars(self) | {"num_images": int(num_images), "loss_sum": loss_sum, "num_skipped": num_skipped}

    @classmethod
    def from_state_dict(cls, state: dict[str, Any]) -> Progress:
        """Restores what `state_dict` returned; the main process gets the sums over all processes."""
        return cls(**state) if is_main() else cls(**state | {"num_images": 0, "loss_sum": 0.0, "num_skipped": 0.0})


class Timer:
    """Measures the seconds of a `Progress`, on top of those that it has."""

    def __init__(self, progress: Progress, counters: Counters) -> None:
        self._progress, self._counters = progress, counters
        self._start = time.perf_counter() - progress.seconds
        self._wait_before = counters.wait_seconds - progress.wait_seconds

    def update(self) -> None:
        """Writes the times up to now into the progress."""
        self._progress.seconds = time.perf_counter() - self._start
        self._progress.wait_seconds = self._counters.wait_seconds - self._wait_before

    def exclude(self, seconds: float) -> None:
        """Does not count `seconds` that have passed."""
        self._start += seconds

    @property
    def wait_share(self) -> float:
        """Share of the time that was spent waiting for data."""
        return self._progress.wait_seconds / self._progress.seconds
