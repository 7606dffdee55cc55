"""Training speed by number of processes, and the overhead of gradient sync and of the input pipeline.

python -m benchmarks.scaling --data PHOTOS --model resnet50 --res 128 --processes 1,2,4,8 --json FILE

Each number of processes is a job of torch's elastic launcher; the jobs are interleaved, round by round. Within a job
three kinds of windows are interleaved: steps without gradient sync on a batch that stays on the device; the same with
sync (gradients and BatchNorm's buffers, torch's DistributedDataParallel); and steps on an engine's batches. Mode "weak"
keeps the batch of each process, "strong" that of all processes together. All-reduces of some sizes are timed as well;
bus bandwidth is defined as in nccl-tests. On a CPU all processes share the cores, and each gets an equal part, whatever
their number; the windows then test the machinery and say nothing about GPUs. Ctrl-C keeps the jobs that were finished.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import BenchmarkFiles
from benchmarks.harness.options import WORK_DIR, add_options, at_least, names
from benchmarks.harness.records import Interruption, command, record
from benchmarks.scaling.launcher import run_job
from benchmarks.scaling.metrics import interconnect, results
from benchmarks.scaling.tables import scaling_table
from benchmarks.scaling.worker import Spec
from benchmarks.throughput.engines import KINDS
from fixres.config.recipe import ModelConfig
from fixres.models.factory import create_model
from fixres.models.precision import choose_device, choose_precision
from fixres.pipelines.loaders import ENGINES
from fixres.pipelines.runtime.cli import Parser
from fixres.pipelines.spec import InputError
from fixres.training.step_speed import NUM_CLASSES

_MODES = ("weak", "strong")
_SMALL_SIZES = (1 << 20, 25 << 20)  # bytes; DDP sends gradients in buckets of the second
_NOTE = (
    "{model} at {res} px, {precision}, engine {engine}; in each process {threads} threads of it and {torch_threads} of "
    "torch; {rounds} rounds of jobs, {windows} windows of each kind in a job.{shared}"
)
_SHARED = " All processes share the CPU: this tests the machinery and says nothing about scaling."


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs all jobs of all rounds; returns the record."""
    precision = choose_precision(options.precision, choose_device(options.device))
    environment = conditions(options.data, precision=precision)
    spec, batches, jobs = _spec(options), _batches(options), []
    total = options.rounds * len(options.processes)
    with Interruption() as interruption, tqdm(total=total, desc="scaling", unit=" jobs", disable=None) as bar:
        for number in range(options.rounds):
            for processes in options.processes[:: -1 if number % 2 else 1]:
                job = run_job(_of(spec, batches, processes), processes, options.torch_threads)
                jobs.append({"round": number} | job)
                bar.update()
    words = {"precision": precision.name, "shared": _SHARED if precision.device.type == "cpu" else ""}
    return record(
        "scaling",
        vars(options),
        environment,
        _NOTE.format(**vars(options) | words),
        interruption.happened,
        gradient_bytes=max(spec.reduced_bytes),
        results=results(jobs, batches),
        interconnect=interconnect(jobs),
    )


def _spec(options: argparse.Namespace) -> Spec:
    """What all jobs have in common; converts the data to the engine's format if necessary."""
    gradients = gradient_bytes(options.model)
    files = BenchmarkFiles(options.data, options.work_dir, options.num_images, options.max_side, options.quality)
    names = ("model", "engine", "threads", "device", "precision", "compile", "seconds", "windows")
    return Spec(
        **{name: getattr(options, name) for name in names},
        resolution=options.res,
        batches={},
        path=str(files.path(KINDS[options.engine]).resolve()),
        reduced_bytes=sorted({*(size for size in _SMALL_SIZES if size < gradients), gradients}),
        output="",
    )


def gradient_bytes(model: str, num_classes: int = NUM_CLASSES) -> int:
    """Bytes of the gradients of all weights: float32, also with autocast."""
    net = create_model(ModelConfig(model), num_classes)
    return 4 * sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def _batches(options: argparse.Namespace) -> dict[str, dict[int, int]]:
    """Images of all processes together, by mode and number of processes."""
    size = options.batch_size
    return {mode: {n: n * size if mode == "weak" else size for n in options.processes} for mode in options.mode}


def _of(spec: Spec, batches: dict[str, dict[int, int]], processes: int) -> Spec:
    """The spec of a job. All modes are the same for a single process, so it measures only one."""
    found = {mode: sizes[processes] for mode, sizes in batches.items()}
    return replace(spec, batches=dict(list(found.items())[: 1 if processes == 1 else None]))


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--processes", default="1,2", help="numbers of processes (%(default)s); all: 1, 2, 4, ... GPUs")
    parser.add_argument("--mode", type=names, default="weak,strong", help="%(default)s")
    parser.add_argument("--engine", default="roc", help="%(default)s")
    parser.add_argument("--windows", type=at_least(1), default=4, help="of each kind in a job (%(default)s)")
    add_options(parser, data=..., model="resnet18", res="128", batch_size=32, threads=None, rounds=3, seconds=1.0)
    add_options(parser, device="auto", precision="auto", compile="no", num_images=1500, max_side=500, quality=90)
    add_options(parser, work_dir=WORK_DIR, json=None)
    return _checked(parser.parse_args())


def _checked(options: argparse.Namespace) -> argparse.Namespace:
    options.processes = _numbers(options.processes)
    if len(options.res) != 1:
        raise InputError(f"res={','.join(map(str, options.res))} must be one side in pixels; call again for others")
    options.res = options.res[0]
    if options.engine not in ENGINES:
        raise InputError(f"engine={options.engine!r} cannot train in several processes; use {', '.join(ENGINES)}")
    if not set(options.mode) <= set(_MODES):
        raise InputError(f"mode={','.join(options.mode)!r} must be of {', '.join(_MODES)}")
    most = max(options.processes)
    _check_devices(choose_device(options.device).type, most)
    _check_batches(options, most)
    share = max(1, len(os.sched_getaffinity(0)) // most)
    options.torch_threads = int(os.environ.get("OMP_NUM_THREADS", share))
    if options.threads is None:
        options.threads = share
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
    if options.num_images < largest:
        raise InputError(f"num-images={options.num_images} is less than a batch of {largest}; raise it")


main = command(_parse, measure, scaling_table)
