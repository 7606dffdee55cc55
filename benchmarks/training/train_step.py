"""How fast networks train at each resolution, with data at hand, and how many loader cores they would eat.

python -m benchmarks.training.train_step --models resnet18,resnet50 --res 128,160,224 --json FILE

A step is what the trainer does: normalize, forward, loss, backward, update. Batches lie on the device, so this is the
ceiling for every input engine. Resolutions take turns. FLOPs are counted by torch (a multiplication and an addition are
two), three times the forward pass for training; the device's peak is a large matrix product's in the same format.
Ctrl-C keeps what was measured.
"""

from __future__ import annotations

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.docs.render import train_step_table
from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Turns, Window, take_turns
from benchmarks.harness.options import sides
from benchmarks.harness.records import RESULTS, finish, read_record, record
from fixres.config.recipe import ModelConfig, OptimConfig
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.models.probe import forward_flops
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.trainer import Trainer
from pipelines.runtime.cli import Parser, output_file
from pipelines.runtime.exit_codes import run
from pipelines.spec import InputError

_NUM_CLASSES = 1000
_STEPS_QUEUED = 8
_NOTE = "Batches of {batch_size} on the device, {precision}; {rounds} rounds in turns, medians."


class Steps:
    """Training steps of one network on made images."""

    def __init__(self, name: str, batch_size: int, precision: Precision, compile: str) -> None:
        self.name, self._batch_size, self._device = name, batch_size, precision.device
        self.net = create_model(ModelConfig(name), _NUM_CLASSES).to(precision.device).train()
        self._normalize = Normalize().to(precision.device)
        stepper = Stepper(create_optimizer(self.net, OptimConfig()), precision)
        self._trainer = Trainer(self.net, self._normalize, stepper, precision, 0.1, compile)
        self._labels = torch.randint(0, _NUM_CLASSES, (batch_size,), device=precision.device)

    def window(self, resolution: int, min_seconds: float) -> Window:
        """Steps at a resolution until `min_seconds` have passed, two at least."""
        images = self._images(resolution)
        self._trainer.step(images, self._labels)  # compiles, chooses algorithms
        self._wait()
        return self._timed(lambda: (images, self._labels), min_seconds)

    def fed_window(self, feed: Callable[[], Any], min_seconds: float) -> Window:
        """The same with batches of an input engine: `feed` gives images (uint8 NHWC) and labels on the device."""
        self._trainer.step(*feed()[:2])
        self._wait()
        return self._timed(feed, min_seconds)

    def _timed(self, feed: Callable[[], Any], min_seconds: float) -> Window:
        # Waiting for the device in every step would hide how well an engine works beside it; a queue of steps without
        # an end would time the host. So the device is waited for every few steps.
        start, num_images, num_steps = time.perf_counter(), 0, 0
        while num_steps < 2 or time.perf_counter() - start < min_seconds:
            images, labels = feed()[:2]
            self._trainer.step(images, labels)
            num_images, num_steps = num_images + len(labels), num_steps + 1
            if num_steps % _STEPS_QUEUED == 0:
                self._wait()
        self._wait()
        return Window(num_images, time.perf_counter() - start)

    def forward_flops(self, resolution: int) -> int:
        """Of one image."""
        return forward_flops(self.net, self._normalize, resolution)

    def _images(self, resolution: int) -> torch.Tensor:
        shape = (self._batch_size, resolution, resolution, 3)
        return torch.randint(0, 256, shape, dtype=torch.uint8, device=self._device)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def peak_flops(precision: Precision, seconds: float = 1.0) -> float:
    """FLOP/s of a large matrix product in the same format."""
    device, dtype = precision.device, {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    # A GPU does 2048 a side in 0.02 ms: less than it takes to ask for it and to hear that it is done.
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device, dtype=dtype[precision.name]) for _ in range(2))
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        (a @ b)[0, 0].item()  # waits for it
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def quick_steps(model: str, resolutions: tuple[int, ...] = (128, 160, 224)) -> dict[int, float]:
    """Images a second of a network on this machine's device by resolution: the fastest of a few short windows each.

    The windows take turns. Other work on the machine only ever slows, so the fastest is the nearest to the truth.
    """
    precision = choose_precision("auto", choose_device("auto"))
    on_gpu = precision.device.type == "cuda"
    steps, best = Steps(model, 128 if on_gpu else 2, precision, "auto"), dict.fromkeys(resolutions, 0.0)
    rounds = 3 if on_gpu else 2  # a CPU takes seconds for a step of a large network
    title = f"steps of {model}"
    with tqdm(total=rounds * len(resolutions), desc=title, unit=" windows", leave=False, disable=None) as bar:
        for _ in range(rounds):
            for resolution in resolutions:
                speed = steps.window(resolution, 1.0 if on_gpu else 0.5).images_per_second
                best[resolution] = max(best[resolution], speed)
                bar.update()
    return best


def quick_record(model: str, resolutions: tuple[int, ...]) -> dict[str, Any]:
    """A record of `quick_steps`' kind for one network: enough for the feeding table, not for quoting."""
    device = choose_device("auto")
    options = argparse.Namespace(
        models=[model],
        res=list(resolutions),
        batch_size=128 if device.type == "cuda" else 8,
        rounds=2,
        seconds=1.0 if device.type == "cuda" else 0.5,
        device="auto",
        precision="auto",
        compile="auto",
        json=None,
    )
    return measure(options)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All networks, resolutions and rounds; returns what the JSON file holds."""
    device = choose_device(options.device)
    precision, environment = choose_precision(options.precision, device), conditions()
    peak, results, interrupted = peak_flops(precision), [], False
    with tqdm(total=len(options.models) * len(options.res) * options.rounds, unit=" windows", disable=None) as bar:
        try:
            for name in options.models:
                steps = Steps(name, options.batch_size, precision, options.compile)
                runs = {str(side): lambda side=side, s=steps: s.window(side, options.seconds) for side in options.res}
                turns = take_turns(runs, options.rounds, there_and_back=False, progress=bar.update)
                interrupted = turns.interrupted
                results += [_result(steps, side, turns, peak) for side in options.res if turns.num_rounds]
                if interrupted:
                    break
        except KeyboardInterrupt:  # while a network was made
            interrupted = True
    return record(
        "train_step",
        target=options.json,
        note=_NOTE.format(**vars(options) | {"precision": precision.name}),
        settings=options,
        environment=environment | {"precision": precision.name, "device": str(device)},
        partial=interrupted,
        results=results,
        peak_flops=peak,
    )


def _result(steps: Steps, resolution: int, turns: Turns, peak: float) -> dict[str, Any]:
    speed, flops = turns.speed(str(resolution)), 3 * steps.forward_flops(resolution)
    return {
        "model": steps.name,
        "res": resolution,
        "images_per_second": speed.value,
        "interval": [speed.low, speed.high],
        "train_gflops_per_image": flops / 1e9,
        "share_of_peak": speed.value * flops / peak,
    }


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--models", default="resnet18,resnet50", help="timm names (%(default)s)")
    parser.add_argument("--res", default="128,160,192,224", help="sides in pixels (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="least length of a window (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:n]")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument("--compile", choices=("auto", "yes", "no"), default="auto", help="torch.compile (on GPUs)")
    parser.add_argument(
        "--json", type=output_file, help="where the figures go, such as benchmarks/results/train_step.json"
    )
    options = parser.parse_args()
    options.models = options.models.split(",")
    options.res = sides(options.res)
    if options.rounds < 1 or options.batch_size < 2:
        raise InputError("rounds must be at least 1 and batch-size at least 2, for BatchNorm")
    return options


def main() -> None:
    """Measures, prints the table, writes the file."""
    options = _parse()
    content = measure(options)
    throughput = RESULTS / "throughput.json"
    print(train_step_table(content, read_record(throughput, "throughput") if throughput.exists() else None))
    finish(content, options.json)


if __name__ == "__main__":
    run(main)
