"""The overhead of fault tolerance: checkpoints, loss guard, watchdog, watched loaders, a seed for each step.

python -m benchmarks.scaling.fault_tolerance_overhead --networks small:64:8,resnet18:128:16,resnet50:128:16 --json FILE

One trainer trains short interleaved epochs, plain and with all of `fixres.fault_tolerance`; batches stay on the device,
so waiting for data hides nothing. The time of the calls alone, without a step, is measured as well. No checkpoint is
due within these windows: the time to write one is measured alone, and its share follows from the default interval:

    step overhead  = 1 - speed with / speed without
    writing        = w / (w + max(60 * minutes, w / 0.01))     w: seconds of one write
    total overhead = step overhead + writing

The plain epochs do not seed each step either, which no setting can switch off. "small" is the network of the demo, 0.3
million weights: the shorter the step, the larger the overhead. Ctrl-C keeps the networks that are finished.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import math
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Rounds, Window, interleave
from benchmarks.harness.options import ComputeOptions, WindowOptions, check_least
from benchmarks.harness.records import Interruption, command, record
from benchmarks.harness.stats import Estimate, estimate
from benchmarks.scaling.metrics import overhead
from benchmarks.scaling.tables import fault_tolerance_table
from benchmarks.training.load import Load, loads
from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.config.recipe import ModelConfig, OptimConfig
from fixres.fault_tolerance import manager as fault_tolerance
from fixres.fault_tolerance.manager import CHECKPOINTS, FaultTolerance
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import Batch, Counters, InputError, Loader
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.rng import seed_step
from fixres.training.step_speed import NUM_CLASSES, resident_batch, training_network
from fixres.training.trainer import Trainer

PLAIN, WATCHED = "plain", "watched"
_SMALL = ModelConfig("resnet10t", {"channels": [16, 32, 64, 128], "stem_width": 16})  # as in recipes/demo.yaml
_NEVER = 1e9  # minutes
_NUM_CALLS = 2000
_NOTE = "{precision}; {rounds} interleaved rounds, each in both orders; {writes} checkpoints written to {device}."


class Resident:
    """A loader whose epoch is `num_steps` times the same batch on the device."""

    classes = tuple(map(str, range(NUM_CLASSES)))
    shares_boxes = False

    def __init__(self, load: Load, device: torch.device) -> None:
        self.batch_size, self.resolution, self.num_steps = load.batch_size, load.res, 1
        batch = resident_batch(load.batch_size, load.res, device)
        self._batch, self.counters = Batch(*batch, torch.arange(load.batch_size)), Counters()

    @property
    def num_samples(self) -> int:
        return self.num_steps * self.batch_size

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[Batch]:
        return iter([self._batch] * self.num_steps)


class Course:
    """The trainer of one network, plain and with fault tolerance."""

    def __init__(self, load: Load, precision: Precision, folder: Path) -> None:
        self._net, normalize = training_network(load.model(_SMALL), precision)
        self._stepper, self._device = Stepper(create_optimizer(self._net, OptimConfig()), precision), precision.device
        self._trainer = Trainer(self._net, normalize, self._stepper, CrossEntropy(0.1))
        self._loader, self._folder = Resident(load, precision.device), folder
        self.fault_tolerance = FaultTolerance(folder, FaultToleranceConfig(minutes=_NEVER), precision, self._state)
        opened = self.fault_tolerance.watched(lambda *_, **__: self._loader)  # type: ignore[arg-type,return-value]
        self._watched: Loader = opened("train")

    def _state(self) -> dict[str, Any]:
        return {"net": self._net.state_dict(), "stepper": self._stepper.state_dict()}

    def set_window(self, seconds: float) -> None:
        """Sets the length of windows, at least two steps."""
        self.window(PLAIN)
        self._loader.num_steps = 2
        self._loader.num_steps = max(2, math.ceil(2 * seconds / self.window(PLAIN).seconds))

    def window(self, kind: str) -> Window:
        """One short epoch, until the device has finished."""
        start = time.perf_counter()
        if kind == PLAIN:
            with mock.patch("fixres.training.trainer.seed_step", lambda *_: None):
                self._trainer.epoch(self._loader, _no_rate, kind)  # type: ignore[arg-type]
        else:
            self._trainer.epoch(self._watched, _no_rate, kind, monitor=self.fault_tolerance)
        return Window(self._loader.num_samples, time.perf_counter() - start)

    def calls(self) -> float:
        """Seconds of a step's calls on the host, without the step; beside long steps noise hides them."""
        self._loader.num_steps, loss, start = _NUM_CALLS, torch.zeros((), device=self._device), time.perf_counter()
        for number, batch in enumerate(self._watched):
            seed_step(self._device, 0, 0, number)
            self.fault_tolerance.check_loss(loss, batch, WATCHED, number)
            self.fault_tolerance.after_update()
        return (time.perf_counter() - start) / _NUM_CALLS

    def write(self) -> float:
        """Seconds to write a checkpoint to the disk."""
        before, start = self.fault_tolerance.serial, time.perf_counter()
        self.fault_tolerance.save()
        seconds = time.perf_counter() - start
        if not list((self._folder / CHECKPOINTS).glob(f"state-{before + 1:08d}-*.pt")):
            raise InputError(f"{self._folder}: no checkpoint could be written there; choose another --work-dir")
        return seconds

    def checkpoint_bytes(self) -> int:
        """Size of the newest checkpoint's file."""
        return max((self._folder / CHECKPOINTS).glob("state-*.pt")).stat().st_size


def _no_rate(_done: float) -> float:
    return 0.0  # the weights stay constant, so training cannot diverge


def write_share(write_seconds: float, config: FaultToleranceConfig | None = None) -> float:
    """Share of the time for writing checkpoints, at the interval of a setting."""
    minutes = (config or FaultToleranceConfig()).minutes
    return write_seconds / (write_seconds + max(60 * minutes, write_seconds / fault_tolerance._MAX_SHARE))


@dataclass(frozen=True, kw_only=True)
class FaultToleranceOptions(ComputeOptions, WindowOptions):
    """Options of the benchmark."""

    networks: list[str] = field(default_factory=lambda: ["small:64:8", "resnet18:128:16", "resnet50:128:16"])
    """The networks with their batches: NAME:RESOLUTION:BATCH; small is that of the demo."""
    writes: int = 5
    """Checkpoints written."""
    work_dir: Path = Path("runs")
    """Folder for the checkpoints, which are removed."""
    rounds: int = 8
    seconds: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, writes=1)
        loads(self.networks)


def measure(options: FaultToleranceOptions) -> dict[str, Any]:
    """Measures all networks; returns the record."""
    precision = choose_precision(options.precision, choose_device(options.device))
    options.work_dir.mkdir(parents=True, exist_ok=True)
    environment, results = conditions(options.work_dir, precision=precision), []
    with Interruption() as interruption:
        for load in loads(options.networks):
            results.append(_one(load, precision, options))
    words = {"precision": precision.name, "device": environment["storage"]["device"]}
    note = _NOTE.format(**options.settings() | words)
    fields = {"minutes": FaultToleranceConfig().minutes, "results": results}
    return record("fault_tolerance", options.settings(), environment, note, interruption.happened, **fields)


def _one(load: Load, precision: Precision, options: FaultToleranceOptions) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=options.work_dir) as name:
        course = Course(load, precision, Path(name))
        with course.fault_tolerance:
            course.set_window(options.seconds)
            runs = {kind: partial(course.window, kind) for kind in (PLAIN, WATCHED)}
            rounds = interleave(runs, options.rounds, str(load))
            if rounds.interrupted:
                raise KeyboardInterrupt
            write = estimate([course.write() for _ in range(options.writes)])
            calls = estimate([course.calls() for _ in range(options.rounds)])
            return _result(load, rounds, write, course.checkpoint_bytes()) | {"calls_seconds": calls.as_json()}


def _result(load: Load, rounds: Rounds, write: Estimate, checkpoint_bytes: int) -> dict[str, Any]:
    speed, step, writing = rounds.speed(PLAIN), overhead(rounds.ratio(WATCHED, PLAIN)), write_share(write.value)
    return {
        **load._asdict(),
        "images_per_second": speed.value,
        "step_seconds": load.batch_size / speed.value,
        "step_overhead": step,
        "checkpoint_bytes": checkpoint_bytes,
        "write_seconds": write.as_json(),
        "write_share": writing,
        "total_overhead": {"value": step["value"] + writing, "interval": [end + writing for end in step["interval"]]},
    }


main = command(FaultToleranceOptions, __doc__, measure, fault_tolerance_table)


if __name__ == "__main__":
    run(main)
