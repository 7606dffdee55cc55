"""What the tricks cost the training loop: images a second with each, and with all, as a share of the plain loop's.

python -m benchmarks.tricks.speed --loads small:64:64,resnet50:32:128 --json benchmarks/results/tricks_speed.json

Batches lie on the device, all loops take turns in one process. A load is network:batch size:side in pixels; "small" is
the network of the recipe tricks/ablation. Tricks that make another network, and a teacher, whose price is its own
forward pass, are not in it: benchmarks.tricks times them. Ctrl-C keeps what was measured.
"""

from __future__ import annotations

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Turns, Window, take_turns
from benchmarks.harness.records import finish, record
from benchmarks.tricks.speed_table import tricks_speed_table
from fixres.config.augment import AugmentConfig
from fixres.config.parsing import parse_recipe
from fixres.config.recipe import ModelConfig, OptimConfig, Recipe
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.training.build import create_trainer
from fixres.training.ema import Average
from pipelines.runtime.cli import Parser, output_file
from pipelines.runtime.exit_codes import run
from pipelines.spec import InputError, check_resolution

_NUM_CLASSES = 1000
_COLORS, _MIXING = {"color": 0.4, "pca": 0.1}, {"mixup": 0.2, "cutmix": 1.0}
SWITCHES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "plain": ({}, {}),
    "colors, PCA noise": (_COLORS, {}),
    "mixup": ({"mixup": 0.2}, {}),
    "CutMix": ({"cutmix": 1.0}, {}),
    "label smoothing": ({}, {"label_smoothing": 0.1}),
    "average of the weights": ({}, {"ema": 0.9999}),
    "all": (_COLORS | _MIXING, {"label_smoothing": 0.1, "ema": 0.9999}),
}
"""Settings of augment and of optim by name."""
_NOTE = (
    "Batches on the device, {precision}; {rounds} rounds in turns. All: mixup and CutMix in half of the batches each."
)


class Loop:
    """The training loop with some tricks on.

    Args:
        model: the network.
        switch: one of `SWITCHES`.
        images: uint8 (B, r, r, 3) on the device.
        precision: number format and device.
    """

    def __init__(self, model: ModelConfig, switch: str, images: torch.Tensor, precision: Precision) -> None:
        augment, optim = SWITCHES[switch]
        recipe = Recipe(
            model=model,
            optim=OptimConfig(**{"label_smoothing": 0.0, **optim}),
            augment=AugmentConfig(**augment) if augment else None,
        )
        net = create_model(model, _NUM_CLASSES).to(precision.device).train()
        average = None if recipe.optim.ema is None else Average(net, recipe.optim.ema)
        classes = tuple(map(str, range(_NUM_CLASSES)))
        self._trainer = create_trainer(recipe, net, Normalize().to(precision.device), precision, classes, average)
        self._images, self._number = images, 0
        self._labels = torch.randint(0, _NUM_CLASSES, (len(images),), device=images.device)

    def window(self, min_seconds: float) -> Window:
        """Steps until `min_seconds` have passed, two at least, so that mixup and CutMix both have their turn."""
        start, first = time.perf_counter(), self._number
        while self._number < first + 2 or time.perf_counter() - start < min_seconds:
            self._trainer.step(self._images, self._labels, self._number)
            self._number += 1
            if self._images.is_cuda:
                torch.cuda.synchronize()
        return Window((self._number - first) * len(self._images), time.perf_counter() - start)


def _network(name: str) -> ModelConfig:
    if name != "small":
        return ModelConfig(name)
    return replace(parse_recipe(["--config", "tricks/ablation"]).model, init=None)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All loads, switches and rounds; returns what the JSON file holds."""
    device = choose_device(options.device)
    precision, environment = choose_precision(options.precision, device), conditions()
    results, interrupted = [], False
    total = len(options.loads) * len(options.switches) * (2 * options.rounds + 1)
    with tqdm(total=total, unit=" windows", disable=None) as bar:
        try:
            for name, batch_size, side in options.loads:
                bar.set_description_str(f"{name}, {side} px")
                images = torch.randint(0, 256, (batch_size, side, side, 3), dtype=torch.uint8, device=device)
                loops = {switch: Loop(_network(name), switch, images, precision) for switch in options.switches}
                for loop in loops.values():
                    loop.window(0.0)  # compiles, chooses algorithms, allocates
                    bar.update()
                runs = {switch: lambda loop=loop: loop.window(options.seconds) for switch, loop in loops.items()}
                turns = take_turns(runs, options.rounds, progress=bar.update)
                if turns.num_rounds:
                    results.append(_result(name, batch_size, side, turns))
                if interrupted := turns.interrupted:
                    break
        except KeyboardInterrupt:  # while networks were made
            interrupted = True
    return record(
        "tricks_speed",
        target=options.json,
        note=_NOTE.format(precision=precision.name, rounds=options.rounds),
        settings=options,
        environment=environment | {"precision": precision.name, "device": str(device)},
        partial=interrupted,
        results=results,
    )


def _result(name: str, batch_size: int, side: int, turns: Turns) -> dict[str, Any]:
    loops = []
    for switch in turns.rounds:
        speed, share = turns.speed(switch), turns.ratio(switch, "plain")
        one = {"tricks": switch, "images_per_second": speed.value, "interval": [speed.low, speed.high]}
        loops.append(one | {"share": share.value, "share_interval": [share.low, share.high]})
    return {"model": name, "batch_size": batch_size, "res": side, "loops": loops}


def _load(text: str) -> tuple[str, int, int]:
    try:
        name, batch_size, side = text.split(":")
        found = name, int(batch_size), check_resolution(int(side))
    except ValueError as error:
        raise InputError(f"loads: {text!r} must be network:batch:pixels, such as resnet50:32:128 ({error})") from None
    if found[1] < 2:
        raise InputError(f"loads: {text!r}: the batch must have 2 images or more, for BatchNorm")
    return found


def _switches(text: str) -> list[str]:
    wanted = list(SWITCHES) if text == "each" else ["plain", *text.split(";")]
    if unknown := [name for name in wanted if name not in SWITCHES]:
        raise InputError(f"switches: {unknown[0]!r} is unknown; there are {'; '.join(SWITCHES)}")
    return list(dict.fromkeys(wanted))


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--loads", default="small:64:64,resnet50:32:128", help="network:batch:pixels (%(default)s)")
    parser.add_argument("--switches", default="each", help="names with semicolons, beside plain (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="each loop has two windows in a round (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="least length of a window (%(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:n]")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument("--json", type=output_file, help="where the figures go")
    options = parser.parse_args()
    options.loads, options.switches = [_load(one) for one in options.loads.split(",")], _switches(options.switches)
    if options.rounds < 1:
        raise InputError("rounds must be at least 1")
    return options


def main() -> None:
    """Measures, prints the table, writes the file."""
    options = _parse()
    content = measure(options)
    print(tricks_speed_table(content))
    finish(content, options.json)


if __name__ == "__main__":
    run(main)
