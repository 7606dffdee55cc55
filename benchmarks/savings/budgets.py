"""Where does training small stop winning? The savings recipe over several lengths of training.

python -m benchmarks.savings.budgets --data FOLDER                          # recipe savings_budgets, hours on two cores
python -m benchmarks.savings.budgets --data FOLDER --budgets 8,24,60 --seeds 1,2,3

Trains all variants for each number of epochs, from scratch, once for each seed. The variants of one training are
interleaved epoch by epoch, so a busy machine slows them alike; therefore the time of each is given in epochs of the
first variant in the same training. The folder has epochs-N/seed-K/ with each training's own report. After an
interruption the same command resumes.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.records import name_of
from benchmarks.harness.resume import Trainings, TrainingsOptions, command_line, finished_report, parse_trainings
from benchmarks.savings.budgets_report import page, text
from benchmarks.savings.run import check_variants, run_of
from fixres.config.parsing import recipe_of
from fixres.config.recipe import Recipe, VariantConfig
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError
from fixres.reporting.records import VERSION

_SHORTEST = 4  # epochs: warm-up, and a change of resolution after three quarters


class Budgets(Trainings):
    """All variants of a recipe, trained once for each length and seed; `options` are name, note and command."""

    write_page = staticmethod(page)

    def __init__(self, recipe: Recipe, budgets: Sequence[int], seeds: Sequence[int], **options: Any) -> None:
        check_variants(recipe)
        planned = [(seed, epochs) for seed in seeds for epochs in sorted(budgets)]
        trainings = [(f"seed {seed}, {epochs} epochs", scaled(recipe, epochs, seed)) for seed, epochs in planned]
        super().__init__("savings_budgets", recipe.folder, trainings)
        self._options = options

    def found(self, k: int) -> dict[str, Any] | None:
        return finished_report(self.planned[k][1])

    def train(self, k: int, data: Any) -> None:
        from fixres.experiment.experiment import run_experiment

        run_experiment(self.planned[k][1], data, data.describe(), data.check_unchanged)

    def record(self) -> dict[str, Any]:
        reports = [self.finished[k] for k in sorted(self.finished)]
        return {
            "version": VERSION,
            "kind": "savings_budgets",
            "partial": bool(self.missing),
            **self._options,
            "data": Path(reports[0]["data"]["path"]).name if reports else "",
            "runs": [run_of(report) for report in reports],
        }


def scaled(recipe: Recipe, epochs: int, seed: int) -> Recipe:
    """The recipe for another length of training: schedules are stretched, the fine-tuning stays as it is.

    The warm-up takes at most a quarter of the training. Tests are at the end only.
    """
    factor = epochs / max(variant.epochs for variant in recipe.variants.values())

    def stretched(variant: VariantConfig) -> VariantConfig:
        points = [(int(epoch * factor + 0.5), side) for epoch, side in variant.resolution.points]
        length = max(1, int(variant.epochs * factor + 0.5))
        return replace(variant, epochs=length, resolution=replace(variant.resolution, points=points))

    variants = {name: stretched(variant) for name, variant in recipe.variants.items()}
    warmup = min(recipe.optim.warmup_epochs, min(variant.epochs for variant in variants.values()) / 4)
    return replace(
        recipe,
        seed=seed,
        eval_every=0,
        optim=replace(recipe.optim, warmup_epochs=warmup),
        variants=variants,
        run_dir=recipe.folder / f"epochs-{epochs}" / f"seed-{seed}",
    )


@dataclass(frozen=True)
class BudgetsOptions(TrainingsOptions):
    """Options of the benchmark: a recipe, its seeds, and lengths of training."""

    budgets: list[int] = field(default_factory=lambda: [4, 12, 30])
    """Epochs of the longest variant; the others are stretched alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len({*self.budgets}) < max(2, len(self.budgets)) or min(self.budgets) < _SHORTEST:
            raise InputError(f"budgets={self.budgets} must be different numbers from {_SHORTEST} on, such as 8,24,60")


def main() -> None:
    """Trains what is missing, writes record and page, prints the table."""
    options = parse_trainings(BudgetsOptions, sys.argv[1:], __doc__, "savings_budgets")
    name, command = name_of(options.json, "savings_budgets"), command_line("benchmarks.savings.budgets", sys.argv[1:])
    described = {"name": name, "note": options.note, "command": command}
    Budgets(recipe_of(options), options.budgets, options.seeds, **described).run(options.json, text)


if __name__ == "__main__":
    run(main)
