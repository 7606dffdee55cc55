"""What does training small and testing large save, at what accuracy? Several seeds, one page.

python -m benchmarks.savings                                                     # drawn scenes, minutes
python -m benchmarks.savings --config savings --data FOLDER --seeds 1,2,3   # photographs

Trains the recipe's variants, interleaved epoch by epoch, once for each seed, and compares their final evaluations:
tested as trained, tested larger, fine-tuned for the larger resolution. Any setting of fixres train is accepted,
too (`--optim.lr 0.2`). The run folder (runs/NAME, or --output) gets seed-N/ with each seed's own report, savings.json
and savings.html. After an interruption the same command resumes; seeds that are finished are not trained again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness.options import add_options, pairs
from benchmarks.harness.resume import Trainings, as_json, command_line, finished_report, parse_trainings
from benchmarks.savings.comparison import REFERENCES
from benchmarks.savings.report import page, text
from benchmarks.training.run_record import record_of
from fixres.config.recipe import Recipe
from fixres.pipelines.runtime.cli import Parser
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
        _check_variants(recipe)
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


def _check_variants(recipe: Recipe) -> None:
    variants = recipe.variants
    if len(variants) < 2 or not any(name in variants for name in REFERENCES):
        raise InputError(f"variants: {', '.join(variants)}; a comparison needs {' or '.join(REFERENCES)}, and one more")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Recipe]:
    """The benchmark's own options, and the recipe from all other options."""
    parser = Parser(__doc__, allow_abbrev=False)
    parser.add_argument("--target", type=float, help="accuracy, as a fraction, to which times are measured (what large "
                        "reaches in its worst seed, in whole percentage points)")  # fmt: skip
    parser.add_argument("--project", help="network to project ImageNet for, with the next three options (none)")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs of that projection (%(default)s)")
    parser.add_argument("--step-speed", type=pairs(float), help="images/s of one GPU, as 128:2500,160:1700,224:900")
    parser.add_argument("--step-record", type=Path, help="a record of benchmarks.training.train_step made on a GPU")
    add_options(parser, note="", json=None)
    options, recipe = parse_trainings(parser, arguments, "savings_scenes")
    if options.target is not None and not 0 < options.target <= 1:
        raise InputError(f"--target {options.target:g} must be a fraction in (0, 1], such as 0.75")
    return options, recipe


def main() -> None:
    """Trains the missing seeds, writes record and page, prints the table and the projection."""
    options, recipe = parse(sys.argv[1:])
    projection = None
    if options.project:
        speeds = {"step_speed": options.step_speed or {}, "step_record": options.step_record}
        projection = estimate(EstimateOptions(options.gpus, model=options.project, **speeds))
    name, command = options.json.stem if options.json else "savings", command_line("benchmarks.savings", sys.argv[1:])
    described = {"name": name, "note": options.note, "target": options.target, "command": command}
    Savings(recipe, options.seeds, projection, **described).run(options.json, text)
