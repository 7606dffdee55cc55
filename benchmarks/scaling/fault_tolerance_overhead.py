"""What it costs a run to be looked after: state files, loss guard, watchdog, watched loaders, a seed for each step.

python -m benchmarks.scaling.fault_tolerance_overhead --networks small:64:8,resnet18:128:16,resnet50:128:16 --json FILE

The same trainer trains short epochs in turns, plain and with all of `fixres.fault_tolerance.manager`; batches lie on
the device, so no
waiting for data hides anything. The calls' own time, without any step, is measured as well. States are not due within
these windows. How long one takes to write is measured alone, in the same process, and its share of the time follows
from how often the default setting writes:

    watching = 1 - speed with / speed without
    writing  = w / (w + max(60 * minutes, w / 0.01))     w: seconds of one write
    together = watching + writing

Without watching no step is seeded either, which no setting can leave out. "small" is the demo's network, 0.3 million
weights: the shorter the step, the larger the share. Ctrl-C keeps the networks that are finished.
"""

from __future__ import annotations

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Estimate, Turns, Window, estimate, take_turns
from benchmarks.harness.records import finish, record
from benchmarks.scaling.table import fault_tolerance_table
from benchmarks.scaling.worker import NUM_CLASSES
from fixres.config.fault_tolerance import FaultToleranceConfig
from fixres.config.recipe import ModelConfig, OptimConfig
from fixres.fault_tolerance import manager as fault_tolerance
from fixres.fault_tolerance.manager import STATES, FaultTolerance
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.rng import seed_step
from fixres.training.trainer import Trainer
from pipelines.runtime.cli import Parser, output_file
from pipelines.runtime.exit_codes import run
from pipelines.spec import Batch, Counters, InputError, Loader, check_resolution

PLAIN, WATCHED = "plain", "watched"
_SMALL = ModelConfig("resnet10t", {"channels": [16, 32, 64, 128], "stem_width": 16})  # as in recipes/demo.yaml
_NEVER = 1e9  # minutes
_NUM_CALLS = 2000
_NOTE = "{precision}; {rounds} rounds in turns, there and back; {writes} states written to {device}."


class Case(NamedTuple):
    """A network and its batches.

    Attributes:
        name: "small" or a timm name.
        resolution: pixels.
        batch_size: images.
    """

    name: str
    resolution: int
    batch_size: int


class Resident:
    """A loader whose epoch is the same batch `num_steps` times, on the device."""

    classes = tuple(map(str, range(NUM_CLASSES)))
    shares_boxes = False

    def __init__(self, case: Case, device: torch.device) -> None:
        size, self.resolution, self.num_steps = case.batch_size, case.resolution, 1
        images = torch.randint(0, 256, (size, self.resolution, self.resolution, 3), dtype=torch.uint8, device=device)
        labels = torch.randint(0, NUM_CLASSES, (size,), device=device)
        self._batch, self.batch_size, self.counters = Batch(images, labels, torch.arange(size)), size, Counters()

    @property
    def num_samples(self) -> int:
        return self.num_steps * self.batch_size

    def __len__(self) -> int:
        return self.num_steps

    def __iter__(self) -> Iterator[Batch]:
        return iter([self._batch] * self.num_steps)


class Course:
    """One network's trainer, plain and looked after."""

    def __init__(self, case: Case, precision: Precision, folder: Path) -> None:
        model = _SMALL if case.name == "small" else ModelConfig(case.name)
        self._net = create_model(model, NUM_CLASSES).to(precision.device).train()
        self._stepper = Stepper(create_optimizer(self._net, OptimConfig()), precision)
        normalize, self._device = Normalize().to(precision.device), precision.device
        self._trainer = Trainer(self._net, normalize, self._stepper, precision, 0.1)
        self._loader, self._folder = Resident(case, precision.device), folder
        self.fault_tolerance = FaultTolerance(folder, FaultToleranceConfig(minutes=_NEVER), precision, self._state)
        opened = self.fault_tolerance.watched(lambda *_, **__: self._loader, lambda: False)  # type: ignore[arg-type,return-value]
        self._watched: Loader = opened("train")

    def _state(self) -> dict[str, Any]:
        return {"net": self._net.state_dict(), "stepper": self._stepper.state_dict()}

    def set_window(self, seconds: float) -> None:
        """Makes windows about that long, two steps at least."""
        self.window(PLAIN)
        self._loader.num_steps = 2
        self._loader.num_steps = max(2, math.ceil(2 * seconds / self.window(PLAIN).seconds))

    def window(self, kind: str) -> Window:
        """One short epoch, from its start until the device has finished."""
        start = time.perf_counter()
        if kind == PLAIN:
            with _without_seeds():
                self._trainer.epoch(self._loader, _no_rate, kind)  # type: ignore[arg-type]
        else:
            self._trainer.epoch(self._watched, _no_rate, kind, watch=self.fault_tolerance)
        return Window(self._loader.num_samples, time.perf_counter() - start)

    def calls(self) -> float:
        """Seconds that a step's calls take the host, without the step: what noise hides beside long ones."""
        self._loader.num_steps, loss, start = _NUM_CALLS, torch.zeros((), device=self._device), time.perf_counter()
        for number, batch in enumerate(self._watched):
            seed_step(self._device, 0, 0, number)
            self.fault_tolerance.loss(loss, batch, WATCHED, number)
            self.fault_tolerance.updated()
        return (time.perf_counter() - start) / _NUM_CALLS

    def write(self) -> float:
        """Seconds of a state's way to the disk."""
        before, start = self.fault_tolerance.serial, time.perf_counter()
        self.fault_tolerance.save()
        seconds = time.perf_counter() - start
        if not list((self._folder / STATES).glob(f"state-{before + 1:08d}-*.pt")):
            raise InputError(f"{self._folder}: no state could be written there; choose another --folder")
        return seconds

    def state_bytes(self) -> int:
        """Of the newest state's file."""
        return max((self._folder / STATES).glob("state-*.pt")).stat().st_size


def _no_rate(_done: float) -> float:
    return 0.0  # nothing is learnt, and nothing can diverge


@contextmanager
def _without_seeds() -> Iterator[None]:
    with mock.patch("fixres.training.trainer.seed_step", lambda *_: None):
        yield


def write_share(write_seconds: float, config: FaultToleranceConfig | None = None) -> float:
    """Share of the time that goes into writing states of so many seconds, at a setting's interval."""
    minutes = (config or FaultToleranceConfig()).minutes
    return write_seconds / (write_seconds + max(60 * minutes, write_seconds / fault_tolerance._SHARE))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All networks; Ctrl-C keeps those that are finished."""
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device)
    options.folder.mkdir(parents=True, exist_ok=True)
    environment, results, interrupted = conditions(options.folder), [], False
    total = len(options.networks) * options.rounds * 4
    with tqdm(total=total, unit=" windows", desc="overhead", disable=None) as bar:
        try:
            for case in options.networks:
                results += _one(case, precision, options, bar)
        except KeyboardInterrupt:
            interrupted = True
    note = _NOTE.format(**vars(options) | {"precision": precision.name, "device": environment["storage"]["device"]})
    return record(
        "fault_tolerance",
        target=options.json,
        note=note,
        settings=vars(options) | {"networks": [":".join(map(str, case)) for case in options.networks]},
        environment=environment | {"precision": precision.name, "device": str(device)},
        partial=interrupted,
        minutes=FaultToleranceConfig().minutes,
        results=results,
    )


def _one(case: Case, precision: Precision, options: argparse.Namespace, bar: tqdm) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        course = Course(case, precision, Path(name))
        with course.fault_tolerance:
            course.set_window(options.seconds)
            runs = {kind: partial(course.window, kind) for kind in (PLAIN, WATCHED)}
            turns = take_turns(runs, options.rounds, progress=bar.update)
            if turns.interrupted:
                raise KeyboardInterrupt
            writes = [course.write() for _ in range(options.writes)]
            calls = estimate([course.calls() for _ in range(options.rounds)])
            return [_result(case, turns, estimate(writes), course.state_bytes()) | {"calls_seconds": _plain(calls)}]


def _result(case: Case, turns: Turns, write: Estimate, state_bytes: int) -> dict[str, Any]:
    ratio, speed, writing = turns.ratio(WATCHED, PLAIN), turns.speed(PLAIN), write_share(write.value)
    watching = {"value": 1 - ratio.value, "interval": [1 - ratio.high, 1 - ratio.low]}
    return {
        "name": case.name,
        "res": case.resolution,
        "batch_size": case.batch_size,
        "images_per_second": speed.value,
        "step_seconds": case.batch_size / speed.value,
        "watching": watching,
        "state_bytes": state_bytes,
        "write_seconds": _plain(write),
        "write_share": writing,
        "together": {"value": watching["value"] + writing, "interval": [end + writing for end in watching["interval"]]},
    }


def _plain(found: Estimate) -> dict[str, Any]:
    return {"value": found.value, "interval": [found.low, found.high]}


def _cases(text: str) -> list[Case]:
    try:
        found = [part.split(":") for part in text.split(",")]
        return [Case(name, check_resolution(int(side)), int(size)) for name, side, size in found]
    except ValueError as error:
        raise InputError(f"networks={text!r} must be NAME:RESOLUTION:BATCH, such as resnet18:128:16: {error}") from None


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    default = "small:64:8,resnet18:128:16,resnet50:128:16"
    parser.add_argument("--networks", default=default, help="name:resolution:batch, ... (%(default)s)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="length of a window (%(default)s), two steps at least"
    )
    parser.add_argument("--writes", type=int, default=5, help="states written (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:n]")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="states are written below it, then removed")
    parser.add_argument(
        "--json", type=output_file, help="where the figures go, such as benchmarks/results/survival.json"
    )
    options = parser.parse_args()
    options.networks = _cases(options.networks)
    if options.rounds < 1 or options.writes < 1 or any(case.batch_size < 2 for case in options.networks):
        raise InputError("rounds and writes must be at least 1, batches at least 2 images, for BatchNorm")
    return options


def main() -> None:
    """Measures, prints the table, writes the file."""
    options = _parse()
    content = measure(options)
    print(fault_tolerance_table(content))
    finish(content, options.json)


if __name__ == "__main__":
    run(main)
