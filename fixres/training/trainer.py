"""One training epoch over a loader: forward, loss, update, and the time spent waiting for data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

import torch
from torch import Tensor, nn

from fixres.augment.batch_transform import BatchTransform
from fixres.config.augment import AugmentConfig
from fixres.config.recipe import DistillConfig, Recipe
from fixres.distributed.process_group import data_parallel, num_processes
from fixres.models.factory import Normalize
from fixres.models.precision import Precision
from fixres.observability.console import bar
from fixres.observability.profiler import StepProfiler
from fixres.pipelines.spec import Batch, InputError, Loader
from fixres.training.compilation import compiled
from fixres.training.losses import Distilled, Loss, Teacher, label_loss, open_teacher
from fixres.training.optimizer import Stepper, WeightEMA, create_optimizer, set_lr
from fixres.training.progress import EpochResult, Progress, Timer
from fixres.training.regularization import set_drop_rate
from fixres.training.rng import seed_step
from fixres.training.teacher_cache import CachedTeacher, with_cache


class Monitor(Protocol):
    """Observes the steps of an epoch; see `fixres.fault_tolerance.manager`."""

    def check_loss(self, loss: Tensor, batch: Batch, title: str, step: int) -> None:
        """Called after each step with its loss, a scalar on the device."""
        ...

    def after_update(self) -> float:
        """Called after each update of the weights. Returns seconds that do not count as training."""
        ...


class Trainer:
    """A network with its loss and optimizer, trained epoch by epoch.

    Args:
        net: the network; like `normalize` on the device of `stepper.precision`.
        normalize: makes its input.
        stepper: backward pass and update.
        loss: see `fixres.training.losses`.
        compile: see `compilation.compiled`.
        transform: augmentation on the device, before normalization.
        seed: of what the network draws at random, such as dropout.
    """

    def __init__(
        self,
        net: nn.Module,
        normalize: Normalize,
        stepper: Stepper,
        loss: Loss,
        compile: str = "no",
        transform: BatchTransform | None = None,
        seed: int = 0,
    ) -> None:
        self.net, self.normalize, self.stepper = net, normalize, stepper
        self._parallel = data_parallel(net)
        self._forward = compiled(self._parallel, compile, stepper.precision.device)
        self._loss, self._transform, self._seed, self._epoch = loss, transform, seed, 0
        torch.backends.cudnn.benchmark = True  # batches have few sizes, so searching for the fastest algorithm pays

    def set_epoch(self, epoch: int) -> None:
        """Selects the epoch whose random numbers are drawn; the caller also sets the loader's epoch."""
        self._epoch = epoch
        if self._transform is not None:
            self._transform.set_epoch(epoch)

    def regularize(self, augment: AugmentConfig | None, drop_rate: float | None) -> None:
        """Selects the augmentation and, unless it is None, the dropout before the classifier of the next epochs."""
        if self._transform is not None and augment is not None:
            self._transform.config = augment
        if drop_rate is not None:
            set_drop_rate(self.net, drop_rate)

    def epoch(
        self,
        loader: Loader,
        lr: Callable[[float], float],
        title: str,
        profiler: StepProfiler | None = None,
        progress: Progress | None = None,
        monitor: Monitor | None = None,
    ) -> EpochResult:
        """Trains on the loader's current epoch.

        The caller sets the modules' train and eval modes, the epoch of trainer and loader, and the resolution.

        Args:
            loader: training batches, from the position of `progress` on.
            lr: learning rate as a function of the share of the epoch that is done, in [0, 1).
            title: shown with the progress bar.
            profiler: traces some steps.
            progress: where the epoch is resumed; updated after each step. The epoch's beginning if None.
            monitor: observes each step.

        Raises:
            InputError: the mean loss is not finite.
        """
        progress = Progress() if progress is None else progress
        progress.move_to(self.stepper.precision.device)
        timer = Timer(progress, loader.counters)
        num_images = min(len(loader) * loader.batch_size * num_processes(), loader.num_samples)
        with bar(num_images, title, progress.position) as shown:
            for batch, loss, step in self._steps(loader, lr, progress, title, profiler):
                progress.add(loss, len(batch.labels), self._may_skip(monitor))
                timer.update()
                shown.set_postfix_str(f"waiting for data {timer.wait_share:.0%}", refresh=False)
                shown.update(len(batch.labels) * num_processes())
                if monitor is not None:
                    monitor.check_loss(loss, batch, title, step)
                    if (step + 1) % self.stepper.accumulate == 0:
                        timer.exclude(monitor.after_update())
        if profiler is not None:
            profiler.finish(loader.counters.wait_seconds)
        mean, num_images = progress.over_processes()
        if not math.isfinite(mean):
            raise InputError(f"{title}: the loss is {mean}; lower optim.lr or lengthen optim.warmup_epochs")
        timer.update()  # on a GPU the last steps are computed only now
        return EpochResult(mean, num_images, progress.seconds, progress.wait_seconds, loader.resolution)

    def _may_skip(self, monitor: Monitor | None) -> bool:
        """Loss scaling skips steps of infinite losses. Without a monitor nobody limits their number, so they count."""
        return self.stepper.precision.name == "fp16" and monitor is not None

    def _steps(
        self,
        loader: Loader,
        lr: Callable[[float], float],
        progress: Progress,
        title: str,
        profiler: StepProfiler | None,
    ) -> Iterator[tuple[Batch, Tensor, int]]:
        """Trains on each batch; yields it with its loss and its number in the epoch."""
        num_micro, device = self.stepper.accumulate, self.stepper.precision.device
        num_updates = _num_updates(loader, num_micro, title)
        first, last = _span(loader, progress.position, num_micro, num_updates)
        images_per_step = loader.batch_size * num_processes()
        batches = loader if last == len(loader) else islice(loader, last - first)
        for step, batch in enumerate(batches, start=first):
            if profiler is not None:
                profiler.step(loader.counters.wait_seconds)
            set_lr(self.stepper.optimizer, lr(step // num_micro / num_updates))
            seed_step(device, self._seed, self._epoch, step)
            images, labels = (part.to(device, non_blocking=True) for part in (batch.images, batch.labels))
            loss = self.step(images, labels, step)
            progress.position = min(progress.position + images_per_step, loader.num_samples)
            yield batch, loss, step

    def step(self, images: Tensor, labels: Tensor, number: int = 0) -> Tensor:
        """Trains on uint8 (B, H, W, 3) and int64 (B,), the batch `number` of an epoch; returns the loss, a scalar.

        All three are on the device.
        """
        targets = labels
        if self._transform is not None:
            images, targets = self._transform(images, labels, number)
        with self.stepper.context(self._parallel):
            with self.stepper.precision.autocast(), _small_batches_as_input_errors(images):
                loss = self._loss(self._forward(self.normalize(images)), targets, images)
            self.stepper.step(loss)
        return loss.detach()


def _num_updates(loader: Loader, num_micro: int, title: str) -> int:
    """Updates in an epoch. Micro-batches that are too few for an update are left out, like a short last batch."""
    if num_micro > 1 and len(loader) < num_micro:
        raise InputError(f"{title}: too few images for {num_micro} micro-batches; lower optim.accumulate")
    return len(loader) // num_micro


def _span(loader: Loader, position: int, num_micro: int, num_updates: int) -> tuple[int, int]:
    """The steps, from the first to before the last, that remain after `position` images of an epoch."""
    images_per_step = loader.batch_size * num_processes()
    first = position // images_per_step
    if first % num_micro == 0 and position % images_per_step == 0:
        return first, num_updates * num_micro
    # The steps before were made by another number of processes, with batches of another size: begin with an update.
    first = first // num_micro * num_micro
    num_left = (loader.num_samples - position) // images_per_step
    return first, first + num_left // num_micro * num_micro


@contextmanager
def _small_batches_as_input_errors(images: Tensor) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"BatchNorm cannot learn from {len(images)} image at a time; raise optim.batch_size (in fine-tuning "
            "finetune.batch_size) or lower optim.accumulate"
        ) from error


def create_trainer(
    recipe: Recipe,
    net: nn.Module,
    normalize: Normalize,
    precision: Precision,
    classes: tuple[str, ...],
    ema: WeightEMA | None = None,
) -> Trainer:
    """A trainer of `net` with every trick that is on in `recipe`; see `Trainer` and `Stepper` for the arguments."""
    optim, augment, distill = recipe.optim, recipe.augment, recipe.distill
    if augment is None and any(variant.regularization for variant in recipe.variants.values()):
        augment = AugmentConfig()  # `Trainer.regularize` changes it
    stepper = Stepper(create_optimizer(net, optim), precision, optim.accumulate or 1, ema)
    transform = BatchTransform(augment, len(classes), recipe.seed) if augment is not None else None
    loss = label_loss(optim)
    if distill is not None:
        loss = Distilled(loss, _teacher(distill, classes, precision), distill.temperature)
    return Trainer(net, normalize, stepper, loss, recipe.compile, transform, recipe.seed)


def _teacher(config: DistillConfig, classes: tuple[str, ...], precision: Precision) -> Teacher | CachedTeacher:
    teacher = open_teacher(config, classes, precision.device)
    if config.cache is None:
        return teacher
    return with_cache(teacher, config.cache, len(classes), config.cache_dtype, precision.name)
