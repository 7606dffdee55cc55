"""Training steps fed by each input engine, against steps with data at hand: the share of the ceiling that is reached.

python -m benchmarks.training.end_to_end_step --data PHOTOS --model resnet50 --engines roc,ffcv,dali --json FILE

The ceiling repeats one batch that lies on the device (benchmarks.training.train_step). All take turns within a
round, one
network for all. While others work an engine has filled its queues, so windows are long and the first batches are not
counted.
"""

from __future__ import annotations

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.docs.render import fed_step_table
from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.interleaved import Turns, Window, take_turns
from benchmarks.harness.options import sides
from benchmarks.harness.records import finish, record
from benchmarks.throughput.engines import KINDS, Contender, Stream, batches_ahead, check_engines
from benchmarks.training.train_step import Steps
from fixres.models.precision import choose_device, choose_precision
from pipelines.runtime.cli import Parser, output_file
from pipelines.runtime.exit_codes import run
from pipelines.spec import InputError

CEILING = "data at hand"
_NOTE = (
    "{model}, batches of {batch_size}, {precision}; photographs of at most {max_side} px, quality {quality}; {threads} "
    "threads or workers each; {rounds} rounds in turns."
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All engines and resolutions; Ctrl-C keeps the resolutions that are finished."""
    device = choose_device(options.device)
    precision, environment = choose_precision(options.precision, device), conditions(options.work_dir)
    files = BenchmarkFiles(options.data, options.work_dir, options.num_images, options.max_side, options.quality)
    paths = {name: files.path(KINDS[name]) for name in options.engines}
    steps = Steps(options.model, options.batch_size, precision, options.compile)
    results, interrupted = [], False
    total = len(options.res) * options.rounds * (len(options.engines) + 1)
    with ExitStack() as stack, tqdm(total=total, desc="steps", unit=" windows", disable=None) as bar:
        streams = {}
        for name, path in paths.items():
            contender = Contender(name, path, options.batch_size, options.threads, str(device))
            streams[name] = Stream(contender, options.res[0])
            stack.callback(streams[name].close)
        for side in options.res:
            turns = _turns(steps, streams, side, options, bar)
            interrupted = turns.interrupted
            results += _results(turns, side) if turns.num_rounds else []
            if interrupted:
                break
    note = _NOTE.format(**vars(options) | {"precision": precision.name})
    environment |= {"precision": precision.name, "device": str(device)}
    return record(
        "fed_step",
        target=options.json,
        note=note,
        settings=options,
        environment=environment,
        partial=interrupted,
        results=results,
    )


def _turns(steps: Steps, streams: dict[str, Stream], resolution: int, options: argparse.Namespace, bar: tqdm) -> Turns:
    runs = {CEILING: partial(steps.window, resolution, options.seconds)}
    for name, stream in streams.items():
        stream.set_resolution(resolution)
        runs[name] = partial(_fed, steps, stream, options.seconds, options.threads)
    return take_turns(runs, options.rounds, there_and_back=False, progress=bar.update)


def _fed(steps: Steps, stream: Stream, seconds: float, num_workers: int) -> Window:
    for _ in range(batches_ahead(num_workers)):
        stream.next_batch()
    return steps.fed_window(stream.batch, seconds)


def _results(turns: Turns, resolution: int) -> list[dict[str, Any]]:
    found = []
    for name in turns.rounds:
        speed, share = turns.speed(name), turns.ratio(name, CEILING)
        found.append(
            {
                "engine": name,
                "res": resolution,
                "images_per_second": speed.value,
                "interval": [speed.low, speed.high],
                "share": share.value,
                "share_interval": [share.low, share.high],
            }
        )
    return found


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--model", default="resnet18", help="timm name (%(default)s)")
    parser.add_argument("--engines", default="roc,torch", help="%(default)s; those of benchmarks.throughput")
    parser.add_argument("--res", default="128", help="sides in pixels (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2, help="threads or workers of each engine (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="least length of a window (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:n]")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument("--compile", choices=("auto", "yes", "no"), default="auto", help="torch.compile (on GPUs)")
    parser.add_argument("--num-images", type=int, default=1500, help="size of the data set, images are repeated")
    parser.add_argument("--max-side", type=int, default=500)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--work-dir", type=Path, default=Path("data/throughput"), help="where files are made and kept")
    parser.add_argument(
        "--json", type=output_file, help="where the figures go, such as benchmarks/results/fed_step.json"
    )
    options = parser.parse_args()
    options.engines = check_engines(list(dict.fromkeys(options.engines.split(","))))
    options.res = sides(options.res)
    if options.rounds < 1 or options.batch_size < 2 or options.num_images < options.batch_size:
        raise InputError("rounds must be at least 1, batch-size at least 2 and num-images at least a batch")
    return options


def main() -> None:
    """Measures, prints the table, writes the file."""
    options = _parse()
    content = measure(options)
    print(fed_step_table(content))
    finish(content, options.json)


if __name__ == "__main__":
    run(main)
