"""One epoch over a loader: forward, loss, update, and how long the network stood waiting for data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import torch
from torch import nn
from tqdm import tqdm

from fixres.augment_batch import BatchTransform
from fixres.compilation import compiled
from fixres.hardware import Precision
from fixres.losses import CrossEntropy, Loss
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
        transform: what is done to batches on the device before normalisation; nothing if None.
        loss: in place of cross entropy with `label_smoothing`.
    """

    def __init__(
        self,
        net: nn.Module,
        normalise: Normalise,
        stepper: Stepper,
        precision: Precision,
        label_smoothing: float,
        compile: str = "no",
        transform: BatchTransform | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.net, self.normalise, self.stepper, self.precision = net, normalise, stepper, precision
        self._forward = compiled(net, compile, precision.device)
        self._transform, self._loss = transform, loss or CrossEntropy(label_smoothing)

    def set_epoch(self, epoch: int) -> None:
        """Tells the transform which epoch comes; the loader is told by the caller."""
        if self._transform is not None:
            self._transform.set_epoch(epoch)

    def epoch(
        self, loader: Loader, lr: Callable[[float], float], title: str, profiler: StepProfiler | None = None
    ) -> EpochResult:
        """Trains on the loader's current epoch.

        The caller sets the modules' train and eval modes, the epoch here and of the loader, and its resolution.

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
        num_micro = self.stepper.accumulate
        num_updates = _num_updates(loader, num_micro, title)
        start, waited = time.perf_counter(), loader.counters.wait_seconds
        with tqdm(
            total=_images_ahead(loader), desc=title, unit="img", leave=False, mininterval=0.5, disable=None
        ) as bar:
            # An update that would lack micro-batches is left out, as a short last batch is.
            stop = num_updates * num_micro if len(loader) % num_micro else None
            for step, batch in enumerate(islice(loader, stop)):
                if profiler is not None:
                    profiler.step(loader.counters.wait_seconds)
                set_lr(self.stepper.optimizer, lr(step // num_micro / num_updates))
                images, labels = (part.to(device, non_blocking=True) for part in (batch.images, batch.labels))
                loss = self.step(images, labels, step)
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

    def step(self, images: torch.Tensor, labels: torch.Tensor, number: int = 0) -> torch.Tensor:
        """One step from a batch (uint8 NHWC, int64) on the device; returns the loss, still on the device.

        Args:
            images: uint8 (B, H, W, 3).
            labels: int64 (B,).
            number: of the batch in its epoch, for the transform.
        """
        targets = labels
        if self._transform is not None:
            images, targets = self._transform(images, labels, number)
        with self.precision.autocast():
            loss = self._loss(self._forward(self.normalise(images)), targets, images)
        self.stepper.step(loss)
        return loss.detach()


def _num_updates(loader: Loader, num_micro: int, title: str) -> int:
    if num_micro > 1 and len(loader) < num_micro:
        raise InputError(f"{title}: too few images for {num_micro} micro-batches; lower optim.accumulate")
    return len(loader) // num_micro


def _images_ahead(loader: Loader) -> int:
    return min(len(loader) * loader.batch_size, loader.num_samples)
