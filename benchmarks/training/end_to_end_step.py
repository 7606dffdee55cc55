"""Speed of training steps with batches of each input engine, relative to a batch that stays on the device.

python -m benchmarks.training.end_to_end_step --data PHOTOS --model resnet50 --engines roc,ffcv,dali --json FILE

The upper bound is that of benchmarks.training.train_step: one batch on the device, repeated. All engines train the same
network and are interleaved within a round. An engine fills its queues while others work, so windows are long and the
first batches do not count. Ctrl-C keeps the resolutions that were finished.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Rounds, Window, interleave
from benchmarks.harness.options import PhotoOptions, StepOptions, WindowOptions
from benchmarks.harness.records import command, record
from benchmarks.throughput.engines import KINDS, Engine, Stream, batches_ahead, check_engines
from benchmarks.training.tables import end_to_end_step_table
from fixres.models.precision import choose_device, choose_precision
from fixres.pipelines.runtime.exit_codes import run
from fixres.training.step_speed import Steps

ON_DEVICE = "data on the device"
_NOTE = (
    "{model}, batches of {batch_size}, {precision}; photographs of at most {max_side} px, quality {quality}; {threads} "
    "threads or workers each; {rounds} interleaved rounds."
)


@dataclass(frozen=True, kw_only=True)
class EndToEndStepOptions(PhotoOptions, StepOptions, WindowOptions):
    """Options of the benchmark."""

    engines: list[str] = field(default_factory=lambda: ["roc", "torch"])
    """Engines of benchmarks.throughput."""
    model: str = "resnet18"
    """The network's name in timm."""
    train_res: list[int] = field(default_factory=lambda: [128])
    """Sides of the training crops in pixels."""
    num_workers: int = 2
    """Threads or worker processes of each engine."""
    seconds: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_engines(self.engines)


def measure(options: EndToEndStepOptions) -> dict[str, Any]:
    """Measures all engines and resolutions; returns the record."""
    precision = choose_precision(options.precision, choose_device(options.device))
    environment = conditions(options.work_dir, precision=precision)
    files = options.files()
    paths = {name: files.path(KINDS[name]) for name in options.engines}
    steps = Steps(options.model, options.batch_size, precision, options.compile)
    results = []
    with ExitStack() as stack:
        streams = {}
        for name, path in paths.items():
            engine = Engine(name, path, options.batch_size, options.num_workers, str(precision.device))
            streams[name] = Stream(engine, options.train_res[0])
            stack.callback(streams[name].close)
        for side in options.train_res:
            rounds = _rounds(steps, streams, side, options)
            if rounds.num_rounds:
                results += [
                    {"engine": name, "res": side, **rounds.relative(name, ON_DEVICE)} for name in rounds.windows
                ]
            if rounds.interrupted:
                break
    note = _NOTE.format(**options.settings() | {"precision": precision.name})
    return record("end_to_end_step", options.settings(), environment, note, rounds.interrupted, results=results)


def _rounds(steps: Steps, streams: dict[str, Stream], resolution: int, options: EndToEndStepOptions) -> Rounds:
    runs = {ON_DEVICE: lambda: Window(*steps.timed(resolution, options.seconds))}
    for name, stream in streams.items():
        stream.set_resolution(resolution)
        runs[name] = partial(_fed, steps, stream, options.seconds, options.num_workers)
    return interleave(runs, options.rounds, f"{resolution} px", mirrored=False)


def _fed(steps: Steps, stream: Stream, seconds: float, num_workers: int) -> Window:
    for _ in range(batches_ahead(num_workers)):
        stream.next_batch()
    return Window(*steps.timed_fed(stream.batch, seconds))


main = command(EndToEndStepOptions, __doc__, measure, end_to_end_step_table)


if __name__ == "__main__":
    run(main)
