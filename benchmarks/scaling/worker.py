"""One process of a scaling job: `torchrun ... -m benchmarks.scaling.worker SPEC.json`.

All processes measure the same windows in the same order, and the slowest process's time counts. The main process writes
the result. A process that finds a mistake of the user writes it to a file, because the launcher reports only exit
codes.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.harness.interleaved import Window, interleave
from benchmarks.throughput.engines import batches_ahead
from fixres.config.recipe import ModelConfig, OptimConfig
from fixres.distributed.process_group import (
    all_gather,
    broadcast,
    is_main,
    joined,
    num_processes,
    rank,
    sharded,
    wait_for_all,
    without_sync,
)
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError, Loader, LoaderConfig, TrainCrop
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.step_speed import resident_batch, synchronize, training_network
from fixres.training.trainer import Trainer

_STEPS_QUEUED = 8  # between waits for the device, as in fixres.training.step_speed
_NUM_REDUCED = 5  # all-reduces in a window
Feed = Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Spec:
    """What a job measures."""

    model: str  # a timm name
    resolution: int  # pixels
    batches: dict[str, int]  # images of all processes together, by mode
    path: str  # data of `engine`, which has `threads` threads in each process
    engine: str
    threads: int
    device: str
    precision: str
    compile: str
    seconds: float  # minimum length of a window
    windows: int  # number of windows of each series
    reduced_bytes: list[int]  # sizes of the timed all-reduces
    output: str  # file for the windows


class _Stepper(Stepper):
    """Synchronizes gradients only if `sync` is set."""

    sync = True

    def context(self, net: nn.Module) -> AbstractContextManager:
        return super().context(net) if self.sync else without_sync(net)


class _Steps:
    """Training steps of one process; the learning rate is 0, so processes without sync keep equal weights."""

    def __init__(self, spec: Spec, precision: Precision) -> None:
        torch.manual_seed(0)
        net, normalize = training_network(ModelConfig(spec.model), precision)
        self._stepper = _Stepper(create_optimizer(net, OptimConfig()), precision)
        self._trainer = Trainer(net, normalize, self._stepper, CrossEntropy(0.1), spec.compile)
        self.device = precision.device

    def window(self, feed: Feed, num_images: int, num_steps: int, sync: bool) -> Window:
        """`num_steps` steps of `num_images` over all processes; the time of the slowest process."""
        self._stepper.sync = sync
        self._trainer.step(*feed())  # DDP copies buffers in the first step after one without sync
        synchronize(self.device)
        wait_for_all()
        start = time.perf_counter()
        for number in range(1, num_steps + 1):
            self._trainer.step(*feed())
            if number % _STEPS_QUEUED == 0:
                synchronize(self.device)
        synchronize(self.device)
        return Window(num_images * num_steps, max(all_gather(time.perf_counter() - start)))

    def fed_window(self, feed: Feed, num_images: int, num_steps: int, num_ahead: int) -> Window:
        """The same, after the batches that the engine has prepared during other windows."""
        for _ in range(num_ahead):
            feed()
        return self.window(feed, num_images, num_steps, sync=True)

    def num_steps(self, feed: Feed, seconds: float) -> int:
        """Steps in a window of `seconds`, the same number in all processes."""
        self.window(feed, 1, 1, sync=True)  # chooses algorithms, compiles
        window = self.window(feed, 1, 2, sync=True)
        return broadcast(max(2, math.ceil(2 * seconds / window.seconds)))


def _endless(loader: Loader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        for batch in loader:
            yield batch.images.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
        epoch += 1


def _open(spec: Spec, device: torch.device, batch_size: int) -> Loader:
    def opened(_split: Any, **fields: Any) -> Loader:
        return open_loader(spec.engine, LoaderConfig(Path(spec.path), num_workers=spec.threads, **fields))

    shape = {"crop": TrainCrop(), "resolution": spec.resolution, "batch_size": batch_size}
    loader = sharded(opened)("train", **shape, device=str(device), shuffle=True, drop_last=True)
    if not len(loader):
        raise InputError(f"{spec.path} has {loader.num_samples} images, fewer than a batch of {batch_size}; lower it")
    return loader


def measure(spec: Spec, device: str) -> dict[str, Any]:
    """Measures all windows of the job; every process calls it."""
    chosen = choose_device(device)
    steps, windows = _Steps(spec, choose_precision(spec.precision, chosen)), {}
    for mode, batch_size in spec.batches.items():
        with closing(_open(spec, chosen, batch_size)) as loader:
            windows |= _windows(spec, steps, mode, batch_size, partial(next, _endless(loader, chosen)))
    return {
        "num_processes": num_processes(),
        "windows": windows,
        "all_reduce": {str(size): _all_reduce(size, chosen, spec.windows) for size in spec.reduced_bytes},
    }


def _windows(spec: Spec, steps: _Steps, mode: str, batch_size: int, fed: Feed) -> dict[str, list[list[float]]]:
    """Images and seconds of each window of a mode's series, which are interleaved."""
    batch = resident_batch(batch_size // num_processes(), spec.resolution, steps.device)
    num = steps.num_steps(lambda: batch, spec.seconds)
    runs = {
        "no_sync": partial(steps.window, lambda: batch, batch_size, num, sync=False),
        "sync": partial(steps.window, lambda: batch, batch_size, num, sync=True),
        "end_to_end": partial(steps.fed_window, fed, batch_size, num, batches_ahead(spec.threads)),
    }
    if num_processes() == 1:
        del runs["sync"]  # a single process has nothing to synchronize
    rounds = interleave(runs, spec.windows, mode, mirrored=False)
    return {
        f"{mode}/{kind}": [[window.num_images, window.seconds] for window in found]
        for kind, found in rounds.windows.items()
    }


def _all_reduce(num_bytes: int, device: torch.device, num_windows: int) -> list[float]:
    """Seconds of one all-reduce of float32 in each window, of the slowest process; empty for a single process."""
    if num_processes() == 1:
        return []
    values, found = torch.zeros(max(1, num_bytes // 4), device=device), []
    for number in range(num_windows + 1):
        wait_for_all()
        start = time.perf_counter()
        for _ in range(_NUM_REDUCED):
            dist.all_reduce(values)
        synchronize(device)
        seconds = max(all_gather((time.perf_counter() - start) / _NUM_REDUCED))
        found += [seconds] if number else []  # the first one opens the connections
    return found


def main() -> None:
    """Measures; the main process writes the result."""
    # End at once on SIGTERM: this process has no incomplete file to remove.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    spec = Spec(**json.loads(Path(sys.argv[1]).read_text()))
    try:
        with joined(spec.device) as device:
            content = measure(spec, device)
            if is_main():
                write_json(Path(spec.output), content)
            wait_for_all()
    except InputError as error:
        Path(f"{spec.output}.mistake-{rank()}-{time.monotonic_ns()}").write_text(str(error))
        raise


if __name__ == "__main__":
    run(main)
