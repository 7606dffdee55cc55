"""What does training small and testing large save, at what accuracy? Several seeds, one page.

python -m benchmarks.savings                                                     # drawn scenes, minutes
python -m benchmarks.savings --config savings --data FOLDER --seeds 1,2,3        # photographs

Trains the recipe's variants, interleaved epoch by epoch, once for each seed, and compares their final evaluations:
tested as trained, tested larger, fine-tuned for the larger resolution. Any option of `fixres train` is accepted,
too (`--optim.lr 0.2`). The run folder (runs/NAME, or --output) gets seed-N/ with each seed's own report, savings.json
and savings.html. After an interruption the same command resumes; seeds that are finished are not trained again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.records import name_of
from benchmarks.harness.resume import (
    Trainings,
    TrainingsOptions,
    as_json,
    command_line,
    finished_report,
    parse_trainings,
)
from benchmarks.savings.comparison import REFERENCES
from benchmarks.savings.report import page, text
from benchmarks.training.run_record import record_of
from fixres.config.parsing import recipe_of
from fixres.config.recipe import Recipe
from fixres.pipelines.spec import InputError
from fixres.projection.options import EstimateOptions
from fixres.projection.projection import Projection, estimate
from fixres.reporting.records import VERSION
from fixres.training.schedule import resolution_at

_MORE_FIELDS = ("evaluate_seconds", "paused_seconds")  # besides those of `record_of`


class Savings(Trainings):
    """All variants of a recipe, trained once for each seed; `options` are name, note, target and command."""

    write_page = staticmethod(page)

    def __init__(self, recipe: Recipe, seeds: Sequence[int], projection: Projection | None, **options: Any) -> None:
        check_variants(recipe)
        super().__init__("savings", recipe.folder, [(f"seed {seed}", _recipe_of(recipe, seed)) for seed in seeds])
        self._options, self._projection = options, as_json(projection.as_json()) if projection else None

    def found(self, k: int) -> dict[str, Any] | None:
        return finished_report(self.planned[k][1])

    def train(self, k: int, data: Any) -> None:
        from fixres.experiment.experiment import run_experiment

        run_experiment(self.planned[k][1], data, data.describe(), data.check_unchanged)

    def record(self) -> dict[str, Any]:
        reports = [self.finished[k] for k in sorted(self.finished)]
        return {
            "version": VERSION,
            "kind": "savings",
            "partial": bool(self.missing),
            "projection": self._projection,
            **self._options,
            "data": Path(reports[0]["data"]["path"]).name,
            "runs": [run_of(report) for report in reports],
        }


def run_of(report: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of one seed's report.json: that of `record_of`, curves, and seconds of tests."""
    kept = record_of(report)
    for one, variant in zip(kept["variants"], report["variants"], strict=True):
        one |= {name: variant[name] for name in _MORE_FIELDS}
        one["curve"] = [[point["epoch"], point["train_seconds"], point["top1"]] for point in variant["curve"]]
        tests = variant["sweep_after"] or variant["sweep_before"]
        one["test_seconds"] = {str(test["test_res"]): test["num_images"] / test["images_per_second"] for test in tests}
    return kept


def _recipe_of(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with one seed, also tested at the resolutions at which its variants are trained."""
    own = {resolution_at(variant.epochs - 1, variant.resolution) for variant in recipe.variants.values()}
    sweep = sorted({*recipe.sweep, *own})
    return replace(recipe, seed=seed, sweep=sweep, run_dir=recipe.folder / f"seed-{seed}")


def check_variants(recipe: Recipe) -> None:
    """Raises InputError unless there is a reference and something to compare with it."""
    variants = recipe.variants
    if len(variants) < 2 or not any(name in variants for name in REFERENCES):
        raise InputError(f"variants: {', '.join(variants)}; a comparison needs {' or '.join(REFERENCES)}, and one more")


@dataclass(frozen=True)
class SavingsOptions(TrainingsOptions):
    """Options of the benchmark: a recipe, its seeds, and a projection."""

    target: float | None = None
    """Accuracy, as a fraction, to which times are measured; what large reaches in its worst seed, in whole percentage
    points, if null."""
    project: str | None = None
    """Network to project ImageNet for, with the next three options; no projection if null."""
    gpus: int = 8
    """GPUs of that projection."""
    step_speed: dict[int, float] = field(default_factory=dict)
    """Training speed of one GPU: images/s by resolution in pixels, as 128:2500,160:1700,224:900; measured on this
    machine's GPU without it and without step_record."""
    step_record: Path | None = None
    """A record of benchmarks.training.train_step that was made on such a GPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.target is not None and not 0 < self.target <= 1:
            raise InputError(f"target={self.target:g} must be a fraction in (0, 1], such as 0.75")


def main() -> None:
    """Trains the missing seeds, writes record and page, prints the table and the projection."""
    options = parse_trainings(SavingsOptions, sys.argv[1:], __doc__, "savings_scenes")
    projection = None
    if options.project:
        speeds = {"step_speed": options.step_speed, "step_record": options.step_record}
        projection = estimate(EstimateOptions(options.gpus, model=options.project, **speeds))
    name, command = name_of(options.json, "savings"), command_line("benchmarks.savings", sys.argv[1:])
    described = {"name": name, "note": options.note, "target": options.target, "command": command}
    Savings(recipe_of(options), options.seeds, projection, **described).run(options.json, text)
