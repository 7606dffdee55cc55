"""One epoch over a loader: forward, loss, update, and how long the network stood waiting for data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from fixres.augment.color import BatchTransform
from fixres.distributed.process_group import all_reduce, data_parallel, num_processes
from fixres.models.factory import Normalize
from fixres.models.precision import Precision
from fixres.observability.console import bar
from fixres.observability.profiler import StepProfiler
from fixres.training.compilation import compiled
from fixres.training.loss import CrossEntropy, Loss
from fixres.training.optimizer import Stepper, set_lr
from fixres.training.rng import seed_step
from pipelines.spec import Batch, InputError, Loader


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


@dataclass
class Progress:
    """How far an epoch has come.

    Attributes:
        position: images handed out so far, over all processes.
        num_images: trained on by this process.
        loss_sum: of their losses; a tensor on the device while the epoch runs.
        num_skipped: images of steps that loss scaling left out, not in `loss_sum`; likewise.
        seconds: wall time so far.
        wait_seconds: part of it spent waiting for the loader.
    """

    position: int = 0
    num_images: int = 0
    loss_sum: Tensor | float = 0.0
    num_skipped: Tensor | float = 0.0
    seconds: float = 0.0
    wait_seconds: float = 0.0

    def add(self, loss: Tensor, num_images: int, may_skip: bool) -> None:
        """Counts a step; summed on the device, for asking for the number here would stop the host at every step.

        Args:
            loss: scalar, on the device.
            num_images: of its batch.
            may_skip: a loss that is not finite does not count: its step is left out, and a watch ends long rows.
        """
        if may_skip:
            self.num_skipped += ~loss.isfinite() * num_images
            loss = loss.nan_to_num(0.0, 0.0, 0.0)
        self.loss_sum += loss * num_images
        self.num_images += num_images

    def state_dict(self) -> dict[str, Any]:
        """As plain numbers; waits for the device."""
        return vars(self) | {name: float(getattr(self, name)) for name in ("loss_sum", "num_skipped")}


class Watch(Protocol):
    """Who looks after a long run; see `fixres.fault_tolerance.manager`."""

    def loss(self, loss: Tensor, batch: Batch, title: str, step: int) -> None:
        """A batch's loss, on the device."""
        ...

    def updated(self) -> float:
        """The weights were updated, and `Progress` tells of it. Returns seconds spent on anything but training."""
        ...


class Trainer:
    """A network with its loss, optimizer and precision, trained epoch by epoch.

    Args:
        net: the network, on `precision.device`.
        normalize: from uint8 NHWC batches to the network's input, on the same device.
        stepper: the optimizer's step.
        precision: autocast type and device.
        label_smoothing: in [0, 1) (arXiv 1812.01187, section 5.2).
        compile: see `compilation.compiled`.
        transform: what is done to batches on the device before normalization; nothing if None.
        loss: in place of cross entropy with `label_smoothing`.
        seed: of what the network draws by chance, such as dropout.
    """

    def __init__(
        self,
        net: nn.Module,
        normalize: Normalize,
        stepper: Stepper,
        precision: Precision,
        label_smoothing: float,
        compile: str = "no",
        transform: BatchTransform | None = None,
        loss: Loss | None = None,
        seed: int = 0,
    ) -> None:
        self.net, self.normalize, self.stepper, self.precision = net, normalize, stepper, precision
        self._parallel = data_parallel(net)
        self._forward = compiled(self._parallel, compile, precision.device)
        self._transform, self._loss = transform, loss or CrossEntropy(label_smoothing)
        self._seed, self._epoch = seed, 0
        torch.backends.cudnn.benchmark = True  # batches come in few sizes: worth trying which algorithm is the fastest

    def set_epoch(self, epoch: int) -> None:
        """Tells of what epoch the chance comes; the loader is told by the caller."""
        self._epoch = epoch
        if self._transform is not None:
            self._transform.set_epoch(epoch)

    def epoch(
        self,
        loader: Loader,
        lr: Callable[[float], float],
        title: str,
        profiler: StepProfiler | None = None,
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> EpochResult:
        """Trains on the loader's current epoch.

        The caller sets the modules' train and eval modes, the epoch here and of the loader, and its resolution.

        Args:
            loader: training batches, from where `progress` stands.
            lr: learning rate as a function of the share of the epoch done, in [0, 1).
            title: what the progress bar says.
            profiler: told of each step.
            progress: where the epoch stands and how it goes on; its beginning if None.
            watch: told of each step.

        Raises:
            InputError: the loss is no longer a finite number.
        """
        progress = Progress() if progress is None else progress
        for name in ("loss_sum", "num_skipped"):
            held = torch.as_tensor(getattr(progress, name), dtype=torch.float32, device=self.precision.device)
            setattr(progress, name, held)
        with bar(_images_ahead(loader), title) as shown:
            shown.update(progress.position)
            course = _Course(loader, progress, title, profiler, watch, shown)
            self._run(loader, lr, progress, course)
        if profiler is not None:
            profiler.finish(loader.counters.wait_seconds)
        num_images = progress.loss_sum.new_tensor(progress.num_images)
        loss_sum, num_skipped, num_images = all_reduce(
            torch.stack([progress.loss_sum, progress.num_skipped, num_images])
        )
        mean, num_images = (loss_sum / (num_images - num_skipped)).item(), int(num_images)
        if not math.isfinite(mean):
            raise InputError(f"{title}: the loss is {mean}; lower optim.lr or lengthen optim.warmup_epochs")
        course.note_time()  # once more, for on a GPU the last steps have only now been computed
        return EpochResult(mean, num_images, progress.seconds, progress.wait_seconds, loader.resolution)

    def _run(self, loader: Loader, lr: Callable[[float], float], progress: Progress, course: _Course) -> None:
        num_micro, device = self.stepper.accumulate, self.precision.device
        micro = loader.batch_size * num_processes()
        # An update that would lack micro-batches is left out, as a short last batch is.
        num_updates = _num_updates(loader, num_micro, course.title)
        first, last = progress.position // micro, num_updates * num_micro
        if first % num_micro or progress.position % micro:
            # Batches of another size came before, of another number of processes: no update may begin in the middle.
            first = first // num_micro * num_micro
            last = first + (loader.num_samples - progress.position) // micro // num_micro * num_micro
        ahead = loader if last == len(loader) else islice(loader, last - first)
        for step, batch in enumerate(course.batches(ahead), start=first):
            set_lr(self.stepper.optimizer, lr(step // num_micro / num_updates))
            seed_step(device, self._seed, self._epoch, step)
            images, labels = (part.to(device, non_blocking=True) for part in (batch.images, batch.labels))
            loss = self.step(images, labels, step)
            progress.add(loss, len(batch.labels), self.precision.name == "fp16" and course.is_watched)
            progress.position = min(progress.position + micro, loader.num_samples)
            course.stepped(loss, batch, step, (step + 1) % num_micro == 0)

    def step(self, images: Tensor, labels: Tensor, number: int = 0) -> Tensor:
        """One step from a batch (uint8 NHWC, int64) on the device; returns the loss, still on the device.

        Args:
            images: uint8 (B, H, W, 3).
            labels: int64 (B,).
            number: of the batch in its epoch, for the transform.
        """
        targets = labels
        if self._transform is not None:
            images, targets = self._transform(images, labels, number)
        with self.stepper.context(self._parallel):
            with self.precision.autocast(), _naming_small_batches(images):
                loss = self._loss(self._forward(self.normalize(images)), targets, images)
            self.stepper.step(loss)
        return loss.detach()


class _Course:
    """An epoch as those see it who are told of its steps, and its clock."""

    def __init__(
        self,
        loader: Loader,
        progress: Progress,
        title: str,
        profiler: StepProfiler | None,
        watch: Watch | None,
        shown: tqdm,
    ) -> None:
        self.title, self._progress, self._counters = title, progress, loader.counters
        self._profiler, self._watch, self._shown = profiler, watch, shown
        self._start = time.perf_counter() - progress.seconds
        self._waited = self._counters.wait_seconds - progress.wait_seconds

    @property
    def is_watched(self) -> bool:
        """Whether somebody looks at each loss."""
        return self._watch is not None

    def batches(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Hands them on."""
        for batch in batches:
            if self._profiler is not None:
                self._profiler.step(self._counters.wait_seconds)
            yield batch

    def note_time(self) -> None:
        """Sets the clocks of the progress."""
        self._progress.seconds = time.perf_counter() - self._start
        self._progress.wait_seconds = self._counters.wait_seconds - self._waited

    def stepped(self, loss: Tensor, batch: Batch, step: int, updated: bool) -> None:
        """A step was done, and with it, if `updated`, an update."""
        self.note_time()
        share = self._progress.wait_seconds / self._progress.seconds
        self._shown.set_postfix_str(f"waiting for data {share:.0%}", refresh=False)
        self._shown.update(len(batch.labels) * num_processes())
        if self._watch is not None:
            self._watch.loss(loss, batch, self.title, step)
            if updated:
                self._start += self._watch.updated()


@contextmanager
def _naming_small_batches(images: Tensor) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise InputError(
            f"BatchNorm cannot learn from {len(images)} image at a time; raise optim.batch_size, in a fix "
            "finetune.batch_size, or lower optim.accumulate"
        ) from error


def _num_updates(loader: Loader, num_micro: int, title: str) -> int:
    if num_micro > 1 and len(loader) < num_micro:
        raise InputError(f"{title}: too few images for {num_micro} micro-batches; lower optim.accumulate")
    return len(loader) // num_micro


def _images_ahead(loader: Loader) -> int:
    return min(len(loader) * loader.batch_size * num_processes(), loader.num_samples)
