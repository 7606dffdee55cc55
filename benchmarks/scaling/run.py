"""Training speed against the number of processes, and what is lost to the exchange of gradients and to data.

python -m benchmarks.scaling --data PHOTOS --model resnet50 --res 128 --processes 1,2,4,8 --json FILE

Each number of processes is a job of torch's elastic launcher; the jobs take turns, round by round. Within a job three
kinds of windows take turns: steps without any exchange on a batch that lies on the device, the same with the exchange
(gradients and BatchNorm's buffers, torch's DistributedDataParallel), and those fed by an engine. Mode "weak" keeps the
batch of each process, "strong" that of all together. All-reduces of some sizes are timed as well: bus bandwidth as
nccl-tests define it. On a CPU all processes share the cores, each has an equal part of them whatever their number, and
the windows test the machinery; they say nothing of GPUs. Ctrl-C keeps the jobs that were finished.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.options import sides
from benchmarks.harness.records import finish, record
from benchmarks.scaling.launcher import run_job
from benchmarks.scaling.metrics import interconnect, results
from benchmarks.scaling.table import scaling_table
from benchmarks.scaling.worker import NUM_CLASSES, Spec
from benchmarks.throughput.engines import KINDS
from fixres.config.recipe import ModelConfig
from fixres.models.factory import create_model
from fixres.models.precision import choose_device, choose_precision
from pipelines.loaders import ENGINES
from pipelines.runtime.cli import Parser, output_file
from pipelines.spec import InputError

_MODES = ("weak", "strong")
_SMALL_SIZES = (1 << 20, 25 << 20)  # bytes; DDP sends gradients in buckets of the second
_NOTE = (
    "{model} at {res} px, {precision}, engine {engine}; in each process {threads} threads of it and {torch_threads} of "
    "torch; {rounds} rounds of jobs, {turns} windows of each kind in a job.{shared}"
)
_SHARED = " All processes share the CPU: a test of the machinery, no scaling result."


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All jobs of all rounds; returns what the JSON file holds."""
    environment = conditions(options.data)
    spec, batches, jobs, interrupted = _spec(options), _batches(options), [], False
    total = options.rounds * len(options.processes)
    with tqdm(total=total, desc="scaling", unit=" jobs", disable=None) as bar:
        try:
            for number in range(options.rounds):
                for processes in options.processes[:: -1 if number % 2 else 1]:
                    jobs.append(
                        {"round": number} | run_job(_of(spec, batches, processes), processes, options.torch_threads)
                    )
                    bar.update()
        except KeyboardInterrupt:
            interrupted = True
    return _record(options, environment, spec, jobs, interrupted)


def _record(
    options: argparse.Namespace, environment: dict[str, Any], spec: Spec, jobs: list[dict[str, Any]], partial: bool
) -> dict[str, Any]:
    device = choose_device(options.device)
    precision = choose_precision(options.precision, device).name
    words = vars(options) | {"precision": precision, "shared": _SHARED if device.type == "cpu" else ""}
    return record(
        "scaling",
        target=options.json,
        note=_NOTE.format(**words),
        settings=options,
        environment=environment | {"precision": precision, "device": device.type},
        partial=partial,
        gradient_bytes=max(spec.reduced_bytes),
        results=results(jobs, _batches(options)),
        interconnect=interconnect(jobs),
    )


def _spec(options: argparse.Namespace) -> Spec:
    """What all jobs have in common; makes the engine's file if it is not there."""
    gradients = gradient_bytes(options.model)
    files = BenchmarkFiles(options.data, options.work_dir, options.num_images, options.max_side, options.quality)
    return Spec(
        model=options.model,
        model_kwargs={},
        resolution=options.res,
        batches={},
        path=str(files.path(KINDS[options.engine]).resolve()),
        engine=options.engine,
        threads=options.threads,
        device=options.device,
        precision=options.precision,
        compile=options.compile,
        seconds=options.seconds,
        turns=options.turns,
        reduced_bytes=sorted({*(size for size in _SMALL_SIZES if size < gradients), gradients}),
        output="",
    )


def gradient_bytes(model: str, num_classes: int = NUM_CLASSES) -> int:
    """What a step exchanges: float32 gradients of all weights (autocast keeps them so)."""
    net = create_model(ModelConfig(model), num_classes)
    return 4 * sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def _batches(options: argparse.Namespace) -> dict[str, dict[int, int]]:
    """Images of all processes together, by mode and number of processes."""
    size = options.batch_size
    return {mode: {n: n * size if mode == "weak" else size for n in options.processes} for mode in options.mode}


def _of(spec: Spec, batches: dict[str, dict[int, int]], processes: int) -> Spec:
    """The spec of a job. To a process alone all modes are the same, so it measures one."""
    found = {mode: sizes[processes] for mode, sizes in batches.items()}
    return Spec(**vars(spec) | {"batches": dict(list(found.items())[: 1 if processes == 1 else None])})


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--processes", default="1,2", help="numbers of processes (%(default)s); all: 1, 2, 4, ... GPUs")
    parser.add_argument("--mode", default="weak,strong", help="%(default)s")
    parser.add_argument("--model", default="resnet18", help="timm name (%(default)s)")
    parser.add_argument("--engine", default="roc", help="%(default)s")
    parser.add_argument("--res", default="128", help="side in pixels (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="of each process (weak), of all (strong)")
    parser.add_argument("--threads", type=int, help="of the engine in each process (its part of the cores)")
    parser.add_argument("--rounds", type=int, default=3, help="of jobs (%(default)s)")
    parser.add_argument("--turns", type=int, default=4, help="windows of each kind in a job (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="least length of a window (%(default)s)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument("--compile", choices=("auto", "yes", "no"), default="no", help="torch.compile (%(default)s)")
    parser.add_argument("--num-images", type=int, default=1500, help="stored for the measurement (%(default)s)")
    parser.add_argument("--max-side", type=int, default=500, help="of a stored picture in pixels (%(default)s)")
    parser.add_argument("--quality", type=int, default=90, help="of a stored picture (%(default)s)")
    parser.add_argument("--work-dir", type=Path, default=Path("data/throughput"))
    parser.add_argument(
        "--json", type=output_file, help="where the figures go, such as benchmarks/results/scaling.json"
    )
    return _checked(parser.parse_args())


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    options.processes, options.mode = _numbers(options.processes), options.mode.split(",")
    sizes = sides(options.res)
    if len(sizes) != 1:
        raise InputError(f"res={options.res!r} must be one side in pixels; call again for others")
    options.res = sizes[0]
    if options.engine not in ENGINES:
        raise InputError(f"engine={options.engine!r} cannot train in several processes; use {', '.join(ENGINES)}")
    if not set(options.mode) <= set(_MODES):
        raise InputError(f"mode={','.join(options.mode)!r} must be of {', '.join(_MODES)}")
    if min(options.rounds, options.turns) < 1 or not options.seconds > 0:
        raise InputError("rounds, turns and seconds must be above 0")
    most = max(options.processes)
    _check_devices(choose_device(options.device).type, most)
    _check_batches(options, most)
    cores = len(os.sched_getaffinity(0))
    options.torch_threads = int(os.environ.get("OMP_NUM_THREADS", max(1, cores // most)))
    if options.threads is None:
        options.threads = max(1, cores // most)
    return options


def _numbers(text: str) -> list[int]:
    if text == "all":
        most = max(1, torch.cuda.device_count())
        return sorted({*(2**k for k in range(most.bit_length())), most})
    try:
        found = sorted({int(number) for number in text.split(",")})
    except ValueError:
        found = []
    if not found or found[0] < 1:
        raise InputError(f"processes={text!r} must be numbers of processes such as 1,2,4, or all")
    return found


def _check_devices(device: str, most: int) -> None:
    if device == "cuda" and most > torch.cuda.device_count():
        raise InputError(f"processes={most} is more than the {torch.cuda.device_count()} GPUs here; ask for fewer")


def _check_batches(options: argparse.Namespace, most: int) -> None:
    uneven = [n for n in options.processes if options.batch_size % n or options.batch_size // n < 2]
    if "strong" in options.mode and uneven:
        raise InputError(
            f"batch-size={options.batch_size} does not divide among {uneven[0]} processes with two images or more for "
            "each; choose another, or --mode weak"
        )
    largest = options.batch_size * (most if "weak" in options.mode else 1)
    if options.batch_size < 2 or options.num_images < largest:
        raise InputError(f"batch-size must be at least 2, and num-images={options.num_images} a batch of {largest}")


def main() -> None:
    """Measures, prints the table, writes the file."""
    options = _parse()
    content = measure(options)
    print(scaling_table(content))
    finish(content, options.json)
