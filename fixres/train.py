"""One epoch over a loader: forward, loss, update, and how long the network stood waiting for data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from fixres.compilation import compiled
from fixres.hardware import Precision
from fixres.models import Normalise
from fixres.optim import Stepper, set_lr
from fixres.profiling import StepProfiler
from pipelines.spec import InputError, Loader


@dataclass(frozen=True)
class EpochResult:
    """What one epoch did.

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

    @property
    def images_per_second(self) -> float:
        """Training speed over the whole epoch."""
        return self.num_images / self.seconds


class Trainer:
    """A network with its loss, optimiser and precision, trained epoch by epoch.

    Args:
        net: the network, on `precision.device`.
        normalise: from uint8 NHWC batches to the network's input, on the same device.
        stepper: the optimiser's step.
        precision: autocast type and device.
        label_smoothing: in [0, 1) (arXiv 1812.01187, section 5.2).
        compile: see `compilation.compiled`.
    """

    def __init__(
        self,
        net: nn.Module,
        normalise: Normalise,
        stepper: Stepper,
        precision: Precision,
        label_smoothing: float,
        compile: str = "no",
    ) -> None:
        self.net, self.normalise, self.stepper, self.precision = net, normalise, stepper, precision
        self._forward = compiled(net, compile, precision.device)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def epoch(
        self, loader: Loader, lr: Callable[[float], float], title: str, profiler: StepProfiler | None = None
    ) -> EpochResult:
        """Trains on the loader's current epoch.

        The caller sets the modules' train and eval modes, the loader's epoch and its resolution.

        Args:
            loader: training batches.
            lr: learning rate as a function of the share of the epoch done, in [0, 1).
            title: what the progress bar says.
            profiler: told of each step.

        Raises:
            InputError: the loss is no longer a finite number.
        """
        device = self.precision.device
        loss_sum, num_images = torch.zeros((), device=device), 0
        start, waited = time.perf_counter(), loader.counters.wait_seconds
        with tqdm(
            total=_images_ahead(loader), desc=title, unit="img", leave=False, mininterval=0.5, disable=None
        ) as bar:
            for step, batch in enumerate(loader):
                if profiler is not None:
                    profiler.step(loader.counters.wait_seconds)
                set_lr(self.stepper.optimizer, lr(step / len(loader)))
                loss = self.step(batch.images.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True))
                # Summed on the device: asking for the number here would stop the host at every step.
                loss_sum += loss * len(batch.labels)
                num_images += len(batch.labels)
                share = (loader.counters.wait_seconds - waited) / (time.perf_counter() - start)
                bar.set_postfix_str(f"waiting for data {share:.0%}", refresh=False)
                bar.update(len(batch.labels))
        if profiler is not None:
            profiler.finish(loader.counters.wait_seconds)
        mean = (loss_sum / max(num_images, 1)).item()
        if not math.isfinite(mean):
            raise InputError(f"{title}: the loss is {mean}; lower optim.lr or lengthen optim.warmup_epochs")
        seconds = time.perf_counter() - start
        return EpochResult(mean, num_images, seconds, loader.counters.wait_seconds - waited, loader.resolution)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One update from a batch (uint8 NHWC, int64) on the device; returns the loss, still on the device."""
        with self.precision.autocast():
            loss = self.criterion(self._forward(self.normalise(images)), labels)
        self.stepper.step(loss)
        return loss.detach()


def _images_ahead(loader: Loader) -> int:
    return min(len(loader) * loader.batch_size, loader.num_samples)
