"""One of the processes that `benchmarks.scaling` measures: `torchrun ... -m benchmarks.scaling.worker SPEC.json`.

All processes do the same windows in the same order, and the slowest one's time counts. The main one writes what came
out; one that finds a mistake of the user's leaves it in a file, for a launcher reports exit codes only.
"""

from __future__ import annotations

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from benchmarks.harness.interleaved import Window, take_turns
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
)
from fixres.distributed.process_group import without_sync as alone
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.trainer import Trainer
from pipelines.loaders import open_loader
from pipelines.runtime.atomic_files import write_json
from pipelines.runtime.exit_codes import run
from pipelines.spec import InputError, Loader, LoaderConfig, TrainCrop

NUM_CLASSES = 1000
KINDS = ("alone", "exchange", "fed")
"""Steps without any exchange, with it, and with it on batches of an engine."""
_STEPS_QUEUED = 8  # the device is waited for every few steps, as in benchmarks.training.train_step
_NUM_REDUCED = 5  # all-reduces in a window
Feed = Callable[[], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Spec:
    """What a job of some processes measures.

    Attributes:
        model: a timm name, with its keyword arguments.
        resolution: pixels.
        batches: images of all processes together, by mode.
        path: what `engine` reads; its `threads` are of each process.
        seconds: least length of a window.
        turns: windows of each series.
        reduced_bytes: sizes of which the all-reduce is timed.
        output: where the windows go.
    """

    model: str
    model_kwargs: dict[str, Any]
    resolution: int
    batches: dict[str, int]
    path: str
    engine: str
    threads: int
    device: str
    precision: str
    compile: str
    seconds: float
    turns: int
    reduced_bytes: list[int]
    output: str

    def write(self, path: Path) -> None:
        """As JSON."""
        write_json(path, asdict(self))


class _Stepper(Stepper):
    """May leave the exchange of gradients out."""

    exchanges = True

    def context(self, net: nn.Module) -> AbstractContextManager:
        return super().context(net) if self.exchanges else alone(net)


class _Steps:
    """Training steps of one process; the rate is 0, so that processes that do not exchange stay where they are."""

    def __init__(self, spec: Spec, precision: Precision) -> None:
        torch.manual_seed(0)
        net = create_model(ModelConfig(spec.model, spec.model_kwargs), NUM_CLASSES).to(precision.device).train()
        self._stepper = _Stepper(create_optimizer(net, OptimConfig()), precision)
        self._trainer = Trainer(
            net, Normalize().to(precision.device), self._stepper, precision, 0.1, compile=spec.compile
        )
        self._device = precision.device

    def resident(self, batch_size: int, resolution: int) -> Feed:
        """The same batch again and again, on the device."""
        shape = (batch_size, resolution, resolution, 3)
        images = torch.randint(0, 256, shape, dtype=torch.uint8, device=self._device)
        labels = torch.randint(0, NUM_CLASSES, (batch_size,), device=self._device)
        return lambda: (images, labels)

    def window(self, feed: Feed, num_images: int, num_steps: int, exchanges: bool) -> Window:
        """`num_steps` steps of `num_images` over all processes; the time of the slowest process."""
        self._stepper.exchanges = exchanges
        self._trainer.step(*feed())  # DDP copies buffers in the first step after one without exchange
        wait(self._device)
        wait_for_all()
        start = time.perf_counter()
        for number in range(1, num_steps + 1):
            self._trainer.step(*feed())
            if number % _STEPS_QUEUED == 0:
                wait(self._device)
        wait(self._device)
        return Window(num_images * num_steps, max(all_gather(time.perf_counter() - start)))

    def fed_window(self, feed: Feed, num_images: int, num_steps: int, num_ahead: int) -> Window:
        """The same, after the batches that the engine has made while others worked."""
        for _ in range(num_ahead):
            feed()
        return self.window(feed, num_images, num_steps, exchanges=True)

    def num_steps(self, feed: Feed, seconds: float) -> int:
        """Steps in a window of `seconds`, the same number in all processes."""
        self.window(feed, 1, 1, exchanges=True)  # chooses algorithms, compiles
        window = self.window(feed, 1, 2, exchanges=True)
        return broadcast(max(2, math.ceil(2 * seconds / window.seconds)))


def wait(device: torch.device) -> None:
    """Returns when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _endless(loader: Loader, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        for batch in loader:
            yield batch.images.to(device, non_blocking=True), batch.labels.to(device, non_blocking=True)
        epoch += 1


def _open(spec: Spec, device: torch.device, batch_size: int) -> Loader:
    def opened(_split: Any, **fields: Any) -> Loader:
        path, place = Path(spec.path), str(device)
        return open_loader(spec.engine, LoaderConfig(path, num_workers=spec.threads, device=place, **fields))

    crop = TrainCrop()
    loader = sharded(opened)(
        "train", crop=crop, resolution=spec.resolution, batch_size=batch_size, shuffle=True, drop_last=True
    )
    if not len(loader):
        raise InputError(f"{spec.path} has {loader.num_samples} images, fewer than a batch of {batch_size}; lower it")
    return loader


def measure(spec: Spec, device: str) -> dict[str, Any]:
    """All windows of this job; the same in every process."""
    chosen = choose_device(device)
    steps, windows = _Steps(spec, choose_precision(spec.precision, chosen)), {}
    for mode, batch_size in spec.batches.items():
        with closing(_open(spec, chosen, batch_size)) as loader:
            windows |= _turns(spec, steps, mode, batch_size, partial(next, _endless(loader, chosen)))
    return {
        "num_processes": num_processes(),
        "windows": windows,
        "all_reduce": {str(size): _all_reduce(size, chosen, spec.turns) for size in spec.reduced_bytes},
    }


def _turns(spec: Spec, steps: _Steps, mode: str, batch_size: int, fed: Feed) -> dict[str, list[list[float]]]:
    """Images and seconds of each window of a mode's series, which take turns."""
    resident = steps.resident(batch_size // num_processes(), spec.resolution)
    num = steps.num_steps(resident, spec.seconds)
    runs = {
        "alone": partial(steps.window, resident, batch_size, num, exchanges=False),
        "exchange": partial(steps.window, resident, batch_size, num, exchanges=True),
        "fed": partial(steps.fed_window, fed, batch_size, num, batches_ahead(spec.threads)),
    }
    if num_processes() == 1:
        del runs["exchange"]  # there is none
    turns = take_turns(runs, spec.turns, there_and_back=False)
    return {
        f"{mode}/{kind}": [[window.num_images, window.seconds] for window in found]
        for kind, found in turns.rounds.items()
    }


def _all_reduce(num_bytes: int, device: torch.device, turns: int) -> list[float]:
    """Seconds of one all-reduce of float32 in each window, the slowest process's; none in a process alone."""
    if num_processes() == 1:
        return []
    values, found = torch.zeros(max(1, num_bytes // 4), device=device), []
    for turn in range(turns + 1):
        wait_for_all()
        start = time.perf_counter()
        for _ in range(_NUM_REDUCED):
            dist.all_reduce(values)
        wait(device)
        seconds = max(all_gather((time.perf_counter() - start) / _NUM_REDUCED))
        found += [seconds] if turn else []  # the first one makes the connections
    return found


def main() -> None:
    """Measures, and writes from the main process."""
    # Whoever ends the job wants it ended, not unwound: there is nothing half-written.
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
