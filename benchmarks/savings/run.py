"""What does training small and testing large save, at what accuracy? Several seeds, one page.

python -m benchmarks.savings                                                     # drawn scenes, minutes
python -m benchmarks.savings --config savings --data.path FOLDER --seeds 1,2,3   # photographs

Trains the recipe's variants, which take turns epoch by epoch, once for each seed, and compares their ends: tested as
trained, tested larger, fixed for larger. Any setting of tools/train_fast.py can be given, too (`--optim.lr 0.2`).
The run folder (runs/NAME, or --run_dir) gets seed-N/ with each seed's own report, savings.json and savings.html. The
same command goes on where an earlier one was ended: seeds that are finished are not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.docs.collect import record_of
from benchmarks.harness.resume import as_json, command_line, finished_report, seeds_of
from benchmarks.projection.scenario import Scenario, project, step_speeds
from benchmarks.savings.comparison import REFERENCES
from benchmarks.savings.report import page, text
from fixres.config.parsing import parse_recipe
from fixres.config.recipe import Recipe
from fixres.experiment.report import read_report
from fixres.training.schedule import resolution_at
from pipelines.runtime.atomic_files import atomic_file, write_json
from pipelines.runtime.cli import Parser, output_file
from pipelines.runtime.exit_codes import EXIT_PREEMPTED, leave
from pipelines.spec import InputError

VERSION = 1
_MORE_OF_ARMS = ("evaluate_seconds", "paused_seconds")  # beside what benchmarks.docs.collect keeps


class Savings:
    """A benchmark of some seeds in one folder.

    Args:
        recipe: of the variants; its seed is not used.
        seeds: what is trained with.
        options: name, note, target and command of the record.
    """

    def __init__(self, recipe: Recipe, seeds: Sequence[int], **options: Any) -> None:
        self.folder = recipe.folder
        self._options, self._seeds = {"projection": None, **options}, list(seeds)
        self._recipes = {seed: _recipe_of(recipe, seed) for seed in seeds}
        _check_variants(recipe)
        # Before any training, so that a folder of other settings ends in a line at once.
        self.finished = {s: found for s in seeds if (found := finished_report(self._recipes[s])) is not None}

    @property
    def missing(self) -> list[int]:
        """Seeds that are still to be trained."""
        return [seed for seed in self._seeds if seed not in self.finished]

    def train(
        self, seed: int, open_loader: Any, data: dict[str, object], check_data: Callable[[], None] = lambda: None
    ) -> None:
        """Trains all variants with one seed and adds it to record and page; arguments as `run_experiment`'s."""
        from fixres.experiment.experiment import run_experiment

        recipe = self._recipes[seed]
        run_experiment(recipe, open_loader, data, check_data)
        self.finished[seed] = read_report(recipe.folder)
        self.write()

    def record(self) -> dict[str, Any]:
        """Of the seeds that are finished, in the order asked for."""
        reports = [self.finished[seed] for seed in self._seeds if seed in self.finished]
        return {
            "version": VERSION,
            "kind": "savings",
            "partial": bool(self.missing),
            **self._options,
            "data": Path(reports[0]["data"]["path"]).name,
            "runs": [run_of(report) for report in reports],
        }

    def write(self, projection: dict[str, Any] | None = None) -> dict[str, Any]:
        """Writes savings.json and savings.html, each under its name only when complete; returns the record."""
        self._options["projection"] = projection
        record = self.record()
        write_json(self.folder / "savings.json", record)
        with atomic_file(self.folder / "savings.html", overwrite=True) as path:
            path.write_text(page(record), encoding="utf-8")
        return record


def run_of(report: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of one seed's report.json: as benchmarks.docs.collect, with curves and seconds of tests."""
    kept = record_of(report)
    for one, variant in zip(kept["variants"], report["variants"], strict=True):
        one |= {name: variant[name] for name in _MORE_OF_ARMS}
        one["curve"] = [[point["epoch"], point["train_seconds"], point["top1"]] for point in variant["curve"]]
        tests = variant["sweep_after"] or variant["sweep_before"]
        one["test_seconds"] = {str(test["test_res"]): test["num_images"] / test["images_per_second"] for test in tests}
    return kept


def _recipe_of(recipe: Recipe, seed: int) -> Recipe:
    """The recipe with one seed, tested also at the sizes that its variants are trained at."""
    own = {resolution_at(variant.epochs - 1, variant.resolution) for variant in recipe.variants.values()}
    sweep = sorted({*recipe.sweep, *own})
    return replace(recipe, seed=seed, sweep=sweep, run_dir=recipe.folder / f"seed-{seed}")


def _check_variants(recipe: Recipe) -> None:
    variants = recipe.variants
    if len(variants) < 2 or not any(name in variants for name in REFERENCES):
        raise InputError(f"variants: {', '.join(variants)}; a comparison needs {' or '.join(REFERENCES)}, and one more")


def _train_missing(savings: Savings, recipe: Recipe) -> None:
    from fixres.models.precision import choose_device
    from pipelines.datasets.prepared import PreparedData

    if not savings.missing:
        return
    data = PreparedData(recipe.data, str(choose_device(recipe.device)))
    print(data.engine_why, file=sys.stderr)
    num, start = len(savings.missing), time.perf_counter()
    for done, seed in enumerate(savings.missing):
        left = ""
        if done:
            left = f", about {(time.perf_counter() - start) / done * (num - done) / 60:.0f} min to go"
        print(f"seed {seed}: {done} of {num} trained{left}", file=sys.stderr)
        savings.train(seed, data, data.describe(), data.check_unchanged)


def _scenario(options: argparse.Namespace) -> Scenario | None:
    return None if options.project == "none" else Scenario(options.project, gpus=options.gpus, cores=12 * options.gpus)


def _earlier_projection(folder: Path, scenario: Scenario | None) -> dict[str, Any] | None:
    """What an earlier call in the same folder projected of the same scenario."""
    try:
        found = json.loads((folder / "savings.json").read_text())["projection"]
    except (OSError, ValueError, KeyError):
        return None
    return found if scenario and found and found["scenario"] == as_json(asdict(scenario)) else None


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Recipe]:
    """The benchmark's own options, and the recipe that all others describe."""
    parser = Parser(__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", default="1,2,3", help="numbers, each a training of all variants (%(default)s)")
    parser.add_argument("--target", type=float, help="accuracy, as a fraction, that times are measured to (what large "
                        "reaches in its worst seed, in whole points)")  # fmt: skip
    parser.add_argument("--project", default="resnet50", help="network to project ImageNet for, or none (%(default)s)")
    parser.add_argument("--gpus", type=int, default=8, help="devices of that projection (%(default)s)")
    parser.add_argument("--json", type=output_file, help="write the record there, too: benchmarks/results/savings.json")
    parser.add_argument("--note", default="", help="what the data was and anything odd about the machine")
    options, rest = parser.parse_known_args(list(arguments))
    options.seeds = seeds_of(options.seeds, rest)
    if options.target is not None and not 0 < options.target <= 1:
        raise InputError(f"--target {options.target:g} must be a fraction in (0, 1], such as 0.75")
    return options, parse_recipe(rest, default="savings_scenes")


def _kept(savings: Savings) -> str:
    where = f", {savings.folder / 'savings.html'}" if savings.finished else ""
    return f"{len(savings.finished)} of {len(savings.finished) + len(savings.missing)} seeds are measured{where}"


def main() -> None:
    """Trains what is missing, writes record and page, prints the table."""
    from fixres.fault_tolerance.manager import Preempted

    options, recipe = parse(sys.argv[1:])
    name = options.json.stem if options.json else "savings"
    more = {
        "name": name,
        "note": options.note,
        "target": options.target,
        "command": command_line("benchmarks.savings", sys.argv[1:]),
    }
    savings, scenario = Savings(recipe, options.seeds, **more), _scenario(options)
    projection = _earlier_projection(savings.folder, scenario)
    try:
        _train_missing(savings, recipe)
        record = savings.write(projection)
        if scenario and not projection:
            speeds = step_speeds(scenario.model)
            record = savings.write(as_json(project(scenario, speeds).plain()))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; {_kept(savings)}; the same command goes on from there") from None
    except Preempted as stop:
        line = (
            f"ended by {stop}; {_kept(savings)}; the same command with --resume auto goes on in the middle of the next"
        )
        leave(line, EXIT_PREEMPTED)
    if options.json:
        write_json(options.json, record)
    print(text(record))
    if record["projection"]:
        print("", *record["projection"]["conditions"], *record["projection"]["verdicts"], sep="\n")
    print(f"page: {savings.folder / 'savings.html'}")
