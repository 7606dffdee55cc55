"""Speed of the training loop with each trick, and with all, relative to the plain loop.

python -m benchmarks.tricks.speed --networks small:64:64,resnet50:128:32 --json FILE

Batches stay on the device, and all loops are interleaved in one process. A network is name:resolution:batch size;
"small" is that of the recipe tricks/ablation. Tricks that change the network and distillation, which costs the
teacher's forward pass, are left out; benchmarks.tricks times them. Ctrl-C keeps the results so far.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Window, interleave
from benchmarks.harness.options import ComputeOptions, WindowOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.training.load import loads
from benchmarks.tricks.report import tricks_speed_table
from fixres.config.augment import AugmentConfig
from fixres.config.parsing import parse_recipe
from fixres.config.recipe import ModelConfig, OptimConfig, Recipe
from fixres.models.precision import Precision, choose_device, choose_precision
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError
from fixres.training.optimizer import WeightEMA
from fixres.training.step_speed import NUM_CLASSES, resident_batch, timed_steps, training_network
from fixres.training.trainer import create_trainer

_COLORS, _MIXING = {"color": 0.4, "pca": 0.1}, {"mixup": 0.2, "cutmix": 1.0}
SWITCHES: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "plain": ({}, {}),
    "colors and PCA noise": (_COLORS, {}),
    "mixup": ({"mixup": 0.2}, {}),
    "CutMix": ({"cutmix": 1.0}, {}),
    "label smoothing": ({}, {"label_smoothing": 0.1}),
    "average of the weights": ({}, {"ema": 0.9999}),
    "all": (_COLORS | _MIXING, {"label_smoothing": 0.1, "ema": 0.9999}),
}
"""Settings of augment and of optim, by name."""
_NOTE = (
    "Batches on the device, {precision}; {rounds} interleaved rounds. All: mixup and CutMix in half the batches each."
)


class Loop:
    """The training loop with some tricks, one of `SWITCHES`, on a batch that stays on the device."""

    def __init__(self, model: ModelConfig, switch: str, batch: tuple[Tensor, Tensor], precision: Precision) -> None:
        augment, optim = SWITCHES[switch]
        settings = {"label_smoothing": 0.0, **optim}
        augmented = AugmentConfig(**augment) if augment else None
        recipe = Recipe(model=model, optim=OptimConfig(**settings), augment=augmented)
        net, normalize = training_network(model, precision)
        ema = None if recipe.optim.ema is None else WeightEMA(net, recipe.optim.ema)
        classes = tuple(map(str, range(NUM_CLASSES)))
        self._trainer = create_trainer(recipe, net, normalize, precision, classes, ema)
        self._batch, self._device, self._number = batch, precision.device, 0

    def window(self, min_seconds: float) -> Window:
        """Steps until `min_seconds` have passed, at least two, so that mixup and CutMix are both used."""
        return Window(*timed_steps(self._step, self._device, min_seconds))

    def _step(self) -> int:
        self._trainer.step(*self._batch, self._number)
        self._number += 1
        return len(self._batch[1])


@dataclass(frozen=True, kw_only=True)
class TricksSpeedOptions(ComputeOptions, WindowOptions):
    """Options of the benchmark."""

    networks: list[str] = field(default_factory=lambda: ["small:64:64", "resnet50:128:32"])
    """The networks with their batches: NAME:RESOLUTION:BATCH; small is that of recipe tricks/ablation."""
    tricks: list[str] = field(default_factory=lambda: list(SWITCHES))
    """What is switched on, each compared with plain."""
    rounds: int = 5
    seconds: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        loads(self.networks)
        if unknown := [name for name in self.tricks if name not in SWITCHES]:
            raise InputError(f"tricks: {unknown[0]!r} is unknown; there are {', '.join(SWITCHES)}")


def measure(options: TricksSpeedOptions) -> dict[str, Any]:
    """Measures all loads, tricks and rounds; returns the record."""
    precision = choose_precision(options.precision, choose_device(options.device))
    environment, results = conditions(precision=precision), []
    small = replace(parse_recipe(["--config", "tricks/ablation"]).model, init=None)
    tricks = list(dict.fromkeys(["plain", *options.tricks]))
    with Interruption() as interruption:
        for load in loads(options.networks):
            batch = resident_batch(load.batch_size, load.res, precision.device)
            loops = {switch: Loop(load.model(small), switch, batch, precision) for switch in tricks}
            for loop in loops.values():
                loop.window(0.0)  # compiles, chooses algorithms, allocates
            runs = {switch: lambda loop=loop: loop.window(options.seconds) for switch, loop in loops.items()}
            rounds = interleave(runs, options.rounds, str(load))
            if rounds.num_rounds:
                loops = [{"tricks": switch, **rounds.relative(switch, "plain")} for switch in rounds.windows]
                results.append({"model": load.name, "batch_size": load.batch_size, "res": load.res, "loops": loops})
            if rounds.interrupted:
                raise KeyboardInterrupt
    note = _NOTE.format(precision=precision.name, rounds=options.rounds)
    return record("tricks_speed", options.settings(), environment, note, interruption.happened, results=results)


main = command(TricksSpeedOptions, __doc__, measure, tricks_speed_table)


if __name__ == "__main__":
    run(main)
