"""Speed of training steps with batches of each input engine, relative to a batch that stays on the device.

python -m benchmarks.training.end_to_end_step --data PHOTOS --model resnet50 --engines roc,ffcv,dali --res 128 --json
FILE

The upper bound is that of benchmarks.training.train_step: one batch on the device, repeated. All engines train the same
network and are interleaved within a round. An engine fills its queues while others work, so windows are long and the
first batches do not count. Ctrl-C keeps the resolutions that were finished.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.interleaved import Rounds, Window, interleave
from benchmarks.harness.options import WORK_DIR, add_options
from benchmarks.harness.records import command, record
from benchmarks.throughput.engines import KINDS, Engine, Stream, batches_ahead, engine_list
from benchmarks.training.tables import end_to_end_step_table
from fixres.models.precision import choose_device, choose_precision
from fixres.pipelines.runtime.cli import Parser
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError
from fixres.training.step_speed import Steps

ON_DEVICE = "data on the device"
_NOTE = (
    "{model}, batches of {batch_size}, {precision}; photographs of at most {max_side} px, quality {quality}; {threads} "
    "threads or workers each; {rounds} interleaved rounds."
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures all engines and resolutions; returns the record."""
    precision = choose_precision(options.precision, choose_device(options.device))
    environment = conditions(options.work_dir, precision=precision)
    files = BenchmarkFiles(options.data, options.work_dir, options.num_images, options.max_side, options.quality)
    paths = {name: files.path(KINDS[name]) for name in options.engines}
    steps = Steps(options.model, options.batch_size, precision, options.compile)
    results = []
    with ExitStack() as stack:
        streams = {}
        for name, path in paths.items():
            engine = Engine(name, path, options.batch_size, options.threads, str(precision.device))
            streams[name] = Stream(engine, options.res[0])
            stack.callback(streams[name].close)
        for side in options.res:
            rounds = _rounds(steps, streams, side, options)
            if rounds.num_rounds:
                results += [
                    {"engine": name, "res": side, **rounds.relative(name, ON_DEVICE)} for name in rounds.windows
                ]
            if rounds.interrupted:
                break
    note = _NOTE.format(**vars(options) | {"precision": precision.name})
    return record("end_to_end_step", vars(options), environment, note, rounds.interrupted, results=results)


def _rounds(steps: Steps, streams: dict[str, Stream], resolution: int, options: argparse.Namespace) -> Rounds:
    runs = {ON_DEVICE: lambda: Window(*steps.timed(resolution, options.seconds))}
    for name, stream in streams.items():
        stream.set_resolution(resolution)
        runs[name] = partial(_fed, steps, stream, options.seconds, options.threads)
    return interleave(runs, options.rounds, f"{resolution} px", mirrored=False)


def _fed(steps: Steps, stream: Stream, seconds: float, num_workers: int) -> Window:
    for _ in range(batches_ahead(num_workers)):
        stream.next_batch()
    return Window(*steps.timed_fed(stream.batch, seconds))


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "--engines", type=engine_list, default="roc,torch", help="of benchmarks.throughput (%(default)s)"
    )
    add_options(parser, data=..., model="resnet18", res="128", batch_size=32, threads=2, rounds=3, seconds=4.0)
    add_options(parser, device="auto", precision="auto", compile="auto", num_images=1500, max_side=500, quality=90)
    add_options(parser, work_dir=WORK_DIR, json=None)
    options = parser.parse_args()
    if options.num_images < options.batch_size:
        raise InputError(f"num_images={options.num_images} is less than a batch of {options.batch_size}; raise it")
    return options


main = command(_parse, measure, end_to_end_step_table)


if __name__ == "__main__":
    run(main)
