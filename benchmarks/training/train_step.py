"""Training speed of networks at each resolution with data on the device, and the loader cores that they would need.

python -m benchmarks.training.train_step --models resnet18,resnet50 --train-res 128,160,224 --json FILE

A step does what the trainer does: normalize, forward, loss, backward, update. The batch stays on the device, so this
speed is the upper bound for every input engine. Resolutions are interleaved. torch counts the FLOPs (a multiplication
and an addition are two); training takes three times the forward pass. The peak of the device is that of a large matrix
product in the same format. Ctrl-C keeps the results so far.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import time
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Rounds, Window, interleave
from benchmarks.harness.options import StepOptions, WindowOptions
from benchmarks.harness.records import RESULTS, Interruption, command, record
from benchmarks.training.tables import train_step_table
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.pipelines.runtime.exit_codes import run
from fixres.reporting.records import read_record
from fixres.training.step_speed import Steps

_NOTE = "Batches of {batch_size} on the device, {precision}; {rounds} interleaved rounds, medians."


@dataclass(frozen=True, kw_only=True)
class TrainStepOptions(StepOptions, WindowOptions):
    """Options of the benchmark."""

    models: list[str] = field(default_factory=lambda: ["resnet18", "resnet50"])
    """The networks' names in timm."""
    train_res: list[int] = field(default_factory=lambda: [128, 160, 192, 224])
    """Sides of the batches in pixels."""
    batch_size: int = 16
    seconds: float = 2.0


def peak_flops(precision: Precision, seconds: float = 1.0) -> float:
    """FLOP/s of a large matrix product in the same format."""
    device, dtype = precision.device, {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    # A GPU multiplies matrices of side 2048 in 0.02 ms, which is less than the time of the call.
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype[precision.name]) for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for the result
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def quick_record(model: str, resolutions: list[int]) -> dict[str, Any]:
    """A record of a quick measurement of one network: enough for a projection, too imprecise to quote."""
    on_gpu = choose_device("auto").type == "cuda"
    size = {"batch_size": 128, "seconds": 1.0} if on_gpu else {"batch_size": 4, "seconds": 0.5}
    return measure(TrainStepOptions(models=[model], train_res=resolutions, rounds=2, **size))


def measure(options: TrainStepOptions) -> dict[str, Any]:
    """Measures all networks, resolutions and rounds; returns the record."""
    precision = choose_precision(options.precision, choose_device(options.device))
    environment, peak, results = conditions(precision=precision), peak_flops(precision), []
    with Interruption() as interruption:
        for name in options.models:
            steps = Steps(name, options.batch_size, precision, options.compile)
            runs = {str(side): partial(_window, steps, side, options.seconds) for side in options.train_res}
            rounds = interleave(runs, options.rounds, name, mirrored=False)
            results += [_result(steps, side, rounds, peak) for side in options.train_res if rounds.num_rounds]
            if rounds.interrupted:
                raise KeyboardInterrupt
    note = _NOTE.format(**options.settings() | {"precision": precision.name})
    fields = {"results": results, "peak_flops": peak}
    return record("train_step", options.settings(), environment, note, interruption.happened, **fields)


def _window(steps: Steps, resolution: int, min_seconds: float) -> Window:
    return Window(*steps.timed(resolution, min_seconds))


def _result(steps: Steps, resolution: int, rounds: Rounds, peak: float) -> dict[str, Any]:
    speed, flops = rounds.speed(str(resolution)), 3 * steps.forward_flops(resolution)
    return {
        "model": steps.name,
        "res": resolution,
        **speed.as_json("images_per_second"),
        "train_gflops_per_image": flops / 1e9,
        "share_of_peak": speed.value * flops / peak,
    }


def _table(content: dict[str, Any]) -> str:
    throughput = RESULTS / "throughput.json"
    return train_step_table(content, read_record(throughput, "throughput") if throughput.exists() else None)


main = command(TrainStepOptions, __doc__, measure, _table)


if __name__ == "__main__":
    run(main)
