"""Training speed by number of processes, and the overhead of gradient sync and of the input pipeline.

python -m benchmarks.scaling --data PHOTOS --model resnet50 --train-res 128 --processes 1,2,4,8 --json FILE

Each number of processes is a job of torch's elastic launcher; the jobs are interleaved, round by round. Within a job
three kinds of windows are interleaved: steps without gradient sync on a batch that stays on the device; the same with
sync (gradients and BatchNorm's buffers, torch's DistributedDataParallel); and steps on an engine's batches. Mode "weak"
keeps the batch of each process, "strong" that of all processes together. All-reduces of some sizes are timed as well;
bus bandwidth is defined as in nccl-tests. On a CPU all processes share the cores, and each gets an equal part, whatever
their number; the windows then test the machinery and say nothing about GPUs. Ctrl-C keeps the jobs that were finished.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import PhotoOptions, StepOptions, WindowOptions, check_least
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
from fixres.pipelines.spec import InputError
from fixres.training.step_speed import NUM_CLASSES

_SMALL_SIZES = (1 << 20, 25 << 20)  # bytes; DDP sends gradients in buckets of the second
_NOTE = (
    "{model} at {res} px, {precision}, engine {engine}; in each process {threads} threads of it and {torch_threads} of "
    "torch; {rounds} rounds of jobs, {windows} windows of each kind in a job.{shared}"
)
_SHARED = " All processes share the CPU: this tests the machinery and says nothing about scaling."


@dataclass(frozen=True, kw_only=True)
class ScalingOptions(PhotoOptions, StepOptions, WindowOptions):
    """Options of the benchmark."""

    processes: int | list[int] | Literal["all"] = field(default_factory=lambda: [1, 2])
    """Numbers of processes; all: 1, 2, 4 and so on up to the number of GPUs."""
    mode: list[Literal["weak", "strong"]] = field(default_factory=lambda: ["weak", "strong"])
    """What is constant: weak, the batch of each process; strong, that of all processes together."""
    engine: str = "roc"
    """Engine of the input pipeline."""
    model: str = "resnet18"
    """The network's name in timm."""
    train_res: int = 128
    """Side of the training crops in pixels."""
    num_workers: int | None = None
    """Threads or worker processes of the engine in each process; an equal part of the cores if null."""
    windows: int = 4
    """Windows of each kind in a job."""
    compile: Literal["auto", "yes", "no"] = "no"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, windows=1)
        if self.engine not in ENGINES:
            raise InputError(f"engine={self.engine!r} cannot train in several processes; use {', '.join(ENGINES)}")
        if min(self.numbers, default=0) < 1:
            raise InputError(f"processes={self.processes} must be numbers of processes such as 1,2,4, or all")
        _check_devices(choose_device(self.device).type, max(self.numbers))
        _check_batches(self)

    @property
    def numbers(self) -> list[int]:
        """Numbers of processes, rising."""
        if self.processes != "all":
            return [self.processes] if isinstance(self.processes, int) else sorted(self.processes)
        most = max(1, torch.cuda.device_count())
        return sorted({*(2**k for k in range(most.bit_length())), most})

    @property
    def cores(self) -> int:
        """An equal part of the cores for each process."""
        return max(1, len(os.sched_getaffinity(0)) // max(self.numbers))

    @property
    def torch_threads(self) -> int:
        """Threads of torch in each process."""
        return int(os.environ.get("OMP_NUM_THREADS", self.cores))

    def settings(self) -> dict[str, Any]:
        threads = self.cores if self.num_workers is None else self.num_workers
        resolved = {"processes": self.numbers, "threads": threads, "torch_threads": self.torch_threads}
        return super().settings() | resolved


def measure(options: ScalingOptions) -> dict[str, Any]:
    """Runs all jobs of all rounds; returns the record."""
    precision = choose_precision(options.precision, choose_device(options.device))
    environment = conditions(options.data, precision=precision)
    spec, batches, jobs = _spec(options), _batches(options), []
    total = options.rounds * len(options.numbers)
    with Interruption() as interruption, tqdm(total=total, desc="scaling", unit=" jobs", disable=None) as bar:
        for number in range(options.rounds):
            for processes in options.numbers[:: -1 if number % 2 else 1]:
                job = run_job(_of(spec, batches, processes), processes, options.torch_threads)
                jobs.append({"round": number} | job)
                bar.update()
    words = {"precision": precision.name, "shared": _SHARED if precision.device.type == "cpu" else ""}
    return record(
        "scaling",
        options.settings(),
        environment,
        _NOTE.format(**options.settings() | words),
        interruption.happened,
        gradient_bytes=max(spec.reduced_bytes),
        results=results(jobs, batches),
        interconnect=interconnect(jobs),
    )


def _spec(options: ScalingOptions) -> Spec:
    """What all jobs have in common; converts the data to the engine's format if necessary."""
    gradients = gradient_bytes(options.model)
    names = ("model", "engine", "threads", "device", "precision", "compile", "seconds", "windows")
    settings = options.settings()
    return Spec(
        **{name: settings[name] for name in names},
        resolution=options.train_res,
        batches={},
        path=str(options.files().path(KINDS[options.engine]).resolve()),
        reduced_bytes=sorted({*(size for size in _SMALL_SIZES if size < gradients), gradients}),
        output="",
    )


def gradient_bytes(model: str, num_classes: int = NUM_CLASSES) -> int:
    """Bytes of the gradients of all weights: float32, also with autocast."""
    net = create_model(ModelConfig(model), num_classes)
    return 4 * sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


def _batches(options: ScalingOptions) -> dict[str, dict[int, int]]:
    """Images of all processes together, by mode and number of processes."""
    size = options.batch_size
    return {mode: {n: n * size if mode == "weak" else size for n in options.numbers} for mode in options.mode}


def _of(spec: Spec, batches: dict[str, dict[int, int]], processes: int) -> Spec:
    """The spec of a job. All modes are the same for a single process, so it measures only one."""
    found = {mode: sizes[processes] for mode, sizes in batches.items()}
    return replace(spec, batches=dict(list(found.items())[: 1 if processes == 1 else None]))


def _check_devices(device: str, most: int) -> None:
    if device == "cuda" and most > torch.cuda.device_count():
        raise InputError(f"processes={most} is more than the {torch.cuda.device_count()} GPUs here; ask for fewer")


def _check_batches(options: ScalingOptions) -> None:
    uneven = [n for n in options.numbers if options.batch_size % n or options.batch_size // n < 2]
    if "strong" in options.mode and uneven:
        raise InputError(
            f"batch_size={options.batch_size} does not divide among {uneven[0]} processes with two images or more for "
            "each; choose another, or --mode weak"
        )
    largest = options.batch_size * (max(options.numbers) if "weak" in options.mode else 1)
    if options.num_images < largest:
        raise InputError(f"num_images={options.num_images} is less than a batch of {largest}; raise it")


main = command(ScalingOptions, __doc__, measure, scaling_table)
