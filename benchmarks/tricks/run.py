"""What does each trick of "Bag of Tricks" (arXiv 1812.01187) bring, and what does it cost? Several seeds, one page.

python -m benchmarks.tricks --data FOLDER --seeds 1,2,3                     # an hour and a half on two cores
python -m benchmarks.tricks --data FOLDER --variant stack --teacher FILE

Trains the recipe tricks/ablation (or --config) with one trick after another added, in the paper's order, and with all
tricks but one. Any option of `fixres train` is accepted, too (`--optim.lr 0.2`). Each training has a process of
its own, so that its peak memory can be measured. The run folder (runs/ablation, or --output) gets VARIANT/seed-N/,
tricks.json and tricks.html. After an interruption the same command resumes; what is finished is not trained again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.conditions import conditions
from benchmarks.harness.records import record
from benchmarks.harness.resume import Trainings, TrainingsOptions, command_line, finished_report, parse_trainings
from benchmarks.training.isolated_run import PROCESS, train_apart
from benchmarks.tricks.report import page, text
from benchmarks.tricks.variants import TRICKS, Trick, Variant, chosen, distillation, train_res, variants
from fixres.config.parsing import recipe_of
from fixres.config.recipe import Recipe
from fixres.pipelines.spec import InputError


class Ablation(Trainings):
    """Variants of a baseline's recipe, each trained with every seed; `options` are settings, note and command."""

    write_page = staticmethod(page)

    def __init__(
        self, recipe: Recipe, trained: Sequence[Variant], seeds: Sequence[int], tricks: Sequence[Trick], **options: Any
    ) -> None:
        self._recipe, self._tricks, self._options = recipe, tricks, options
        # All variants of a seed before the next seed: after the first seed there is a table.
        planned = [(variant, seed) for seed in seeds for variant in trained]
        self._variants = [variant for variant, _ in planned]
        place = Path(recipe.data.path)
        self._environment = conditions(place if place.exists() else None)
        folder = recipe.folder
        super().__init__("tricks", folder, [(f"{one.name}, seed {seed}", _recipe_of(one, seed, folder))
                                            for one, seed in planned])  # fmt: skip

    def found(self, k: int) -> dict[str, Any] | None:
        recipe = self.planned[k][1]
        report, process = finished_report(recipe), recipe.folder / PROCESS
        if report is None or not process.is_file():
            return None
        return training_of(self._variants[k], report, json.loads(process.read_text()))

    def train(self, k: int, data: Any) -> None:  # noqa: ARG002 (the process opens the data, which is converted by now)
        train_apart(self.planned[k][1])

    def result(self, k: int) -> str:
        one = self.finished[k]
        return f"top-1 {one['top1']:.1%} at {one['test_res']} px, {one['train_seconds']:.0f} s"

    def record(self) -> dict[str, Any]:
        first = finished_report(self.planned[min(self.finished)][1]) or {}
        # Variants are described by their tricks; paths do not help on another machine.
        own = {key: value for key, value in first["recipe"].items() if key not in ("run_dir", "data", "distill")}
        environment = {"precision": first["environment"]["precision"], "command": self._options["command"]}
        return record(
            "tricks",
            self._options["settings"],
            self._environment | environment,
            self._options["note"],
            bool(self.missing),
            tricks=[{"name": one.name, "title": one.title, "source": one.source} for one in self._tricks],
            train_res=train_res(self._recipe),
            data={key: first["data"][key] for key in ("engine", "num_train", "num_val")},
            recipe=own,
            trainings=[self.finished[k] for k in sorted(self.finished)],
        )


def training_of(variant: Variant, report: dict[str, Any], process: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of one report.json and process.json: seconds, bytes, fractions."""
    (trained,) = report["variants"]
    batch_size = report["recipe"]["optim"]["batch_size"]
    kept = ("train_res_by_epoch", "test_res", "top1", "class_mean_top1", "top1_before_finetune", "train_seconds",
            "finetune_seconds", "wall_seconds", "data_wait_share")  # fmt: skip
    return {
        "variant": variant.name,
        "tricks": list(variant.tricks),
        "seed": report["recipe"]["seed"],
        **{field: trained[field] for field in kept},
        "sweep": {str(one["test_res"]): one["top1"] for one in trained["sweep_before"]},
        # Waiting for data is left out: it depends on the loader and on other load of the machine.
        "seconds_per_step": batch_size * (1 - trained["data_wait_share"]) / trained["images_per_second"],
        **process,
        "commit": report["environment"]["commit"],
        "written": report["written"],
    }


def _recipe_of(variant: Variant, seed: int, folder: Path) -> Recipe:
    return replace(variant.recipe, seed=seed, run_dir=folder / variant.name / f"seed-{seed}")


@dataclass(frozen=True)
class TricksOptions(TrainingsOptions):
    """Options of the benchmark: a recipe, its seeds, and which tricks are added."""

    variant: list[str] = field(default_factory=lambda: ["all"])
    """all, stack, leave-one-out, or names: baseline, a trick's for the stack up to it, without-TRICK for all but it."""
    teacher: Path | None = None
    """Weights of a trained network: adds distillation to all tricks."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher is not None and not self.teacher.is_file():
            raise InputError(
                f"teacher={self.teacher}: no such file; use a checkpoint, such as runs/NAME/VARIANT/finetuned.pt"
            )


def main() -> None:
    """Trains what is missing, writes record and page, prints the tables."""
    options = parse_trainings(TricksOptions, sys.argv[1:], __doc__, "tricks/ablation")
    recipe = recipe_of(replace(options, variant=[]))
    on_top = [] if options.teacher is None else [distillation(options.teacher)]
    trained = chosen(variants(recipe, TRICKS, on_top), options.variant)
    teacher = options.teacher and options.teacher.name
    settings = {"seeds": options.seeds, "variants": ",".join(options.variant), "teacher": teacher, "json": options.json}
    described = {"settings": settings, "note": options.note}
    described["command"] = command_line("benchmarks.tricks", sys.argv[1:])
    Ablation(recipe, trained, options.seeds, [*TRICKS, *on_top], **described).run(options.json, text)
