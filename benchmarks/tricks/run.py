"""What does each trick of "Bag of Tricks" (arXiv 1812.01187) bring, and what does it cost? Several seeds, one page.

python -m benchmarks.tricks --data.path FOLDER --seeds 1,2,3                 # an hour and a half on two cores
python -m benchmarks.tricks --data.path FOLDER --variants stack --teacher FILE

Trains the recipe tricks/ablation (or --config) with one trick after another added, in the paper's order, and with all
but one. Any setting of tools/train_fast.py can be given, too (`--optim.lr 0.2`). Each training has a process of its
own, for its peak memory. The run folder (runs/ablation, or --run_dir) gets VARIANT/seed-N/, tricks.json, tricks.html.
The same command goes on where an earlier one was ended: what is finished is not trained again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.records import record
from benchmarks.harness.resume import command_line, finished_report, seeds_of
from benchmarks.training.isolated_run import PROCESS, train_apart
from benchmarks.tricks.report import page
from benchmarks.tricks.table import text
from benchmarks.tricks.variants import TRICKS, Trick, Variant, chosen, distillation, train_res, variants
from fixres.config.parsing import parse_recipe
from fixres.config.recipe import Recipe
from pipelines.runtime.atomic_files import write_json
from pipelines.runtime.cli import Parser, output_file
from pipelines.spec import InputError


class Ablation:
    """The trainings of one command, in one folder.

    Args:
        recipe: the baseline; its seed is not used.
        trained: what is trained of it.
        seeds: with which.
        tricks: what the variants are made of, for the record.
        options: target, note, settings and command of the record.
    """

    def __init__(
        self, recipe: Recipe, trained: Sequence[Variant], seeds: Sequence[int], tricks: Sequence[Trick], **options: Any
    ) -> None:
        self.folder, self._recipe, self._tricks, self._options = recipe.folder, recipe, list(tricks), options
        self._command = options.pop("command")
        # All of a seed before the next one: after the first, there is a table.
        self.planned = [(one, _recipe_of(one, seed, self.folder)) for seed in seeds for one in trained]
        place = Path(recipe.data.path)
        self._environment = conditions(place if place.exists() else None)
        # Before any training, so that a folder of other settings ends in a line at once.
        self.finished = {k: found for k in range(len(self.planned)) if (found := self._found(k)) is not None}

    @property
    def missing(self) -> list[int]:
        """Places in `planned` of what is still to be trained."""
        return [k for k in range(len(self.planned)) if k not in self.finished]

    def train(self, k: int) -> dict[str, Any]:
        """Trains one of the planned and adds it to record and page; returns what the record keeps of it."""
        train_apart(self.planned[k][1])
        self.finished[k] = self._found(k) or {}
        self.write()
        return self.finished[k]

    def _found(self, k: int) -> dict[str, Any] | None:
        variant, recipe = self.planned[k]
        report = finished_report(recipe)
        if report is None or not (recipe.folder / PROCESS).is_file():
            return None
        return training_of(variant, report, json.loads((recipe.folder / PROCESS).read_text()))

    def record(self) -> dict[str, Any]:
        """Of what is finished, seed after seed."""
        first = finished_report(self.planned[min(self.finished)][1]) or {}
        # The variants are told by their tricks; places of files are nobody else's concern.
        environment = {**self._environment, "precision": first["environment"]["precision"]}
        own = {key: value for key, value in first["recipe"].items() if key not in ("run_dir", "data", "distill")}
        return record(
            "tricks",
            **self._options,
            environment=environment | {"command": self._command},
            partial=bool(self.missing),
            tricks=[{"name": one.name, "title": one.title, "source": one.source} for one in self._tricks],
            train_res=train_res(self._recipe),
            data={key: first["data"][key] for key in ("engine", "num_train", "num_val")},
            recipe=own,
            trainings=[self.finished[k] for k in sorted(self.finished)],
        )

    def write(self) -> dict[str, Any]:
        """Writes tricks.json and tricks.html, each under its name only when complete; returns the record."""
        content = self.record()
        write_json(self.folder / "tricks.json", content)
        page(content, self.folder / "tricks.html")
        return content


def training_of(variant: Variant, report: dict[str, Any], process: dict[str, Any]) -> dict[str, Any]:
    """What the record keeps of one report.json and process.json: seconds, bytes, fractions."""
    (variant,) = report["variants"]
    batch_size = report["recipe"]["optim"]["batch_size"]
    return {
        "variant": variant.name,
        "tricks": list(variant.tricks),
        "seed": report["recipe"]["seed"],
        **{
            key: variant[key]
            for key in ("train_res_by_epoch", "test_res", "top1", "class_mean_top1", "top1_before_finetune")
        },
        **{key: variant[key] for key in ("train_seconds", "finetune_seconds", "wall_seconds", "data_wait_share")},
        "sweep": {str(one["test_res"]): one["top1"] for one in variant["sweep_before"]},
        # Waiting for data is left out: it is the loader's, and differs with the machine's other work.
        "seconds_per_step": batch_size * (1 - variant["data_wait_share"]) / variant["images_per_second"],
        **process,
        "commit": report["environment"]["commit"],
        "written": report["written"],
    }


def _recipe_of(variant: Variant, seed: int, folder: Path) -> Recipe:
    return replace(variant.recipe, seed=seed, run_dir=folder / variant.name / f"seed-{seed}")


def _train_missing(ablation: Ablation, recipe: Recipe) -> None:
    from fixres.models.precision import choose_device
    from pipelines.datasets.prepared import PreparedData

    if not ablation.missing:
        return
    data = PreparedData(recipe.data, str(choose_device(recipe.device)))  # converts, once for all
    print(data.engine_why, file=sys.stderr)
    num, start = len(ablation.missing), time.perf_counter()
    with tqdm(total=len(ablation.planned), initial=len(ablation.finished), unit=" trainings", disable=None) as bar:
        for done, k in enumerate(ablation.missing):
            variant, own = ablation.planned[k]
            bar.set_description_str(f"{variant.name}, seed {own.seed}")
            found = ablation.train(k)
            left = (time.perf_counter() - start) / (done + 1) * (num - done - 1) / 60
            tqdm.write(
                f"{done + 1} of {num}: {variant.name}, seed {own.seed}: top-1 {found['top1']:.1%} at "
                f"{found['test_res']} px, {found['train_seconds']:.0f} s; about {left:.0f} min to go",
                file=sys.stderr,
            )
            bar.update()


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, Recipe]:
    """The benchmark's own options, and the recipe that all others describe."""
    parser = Parser(__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", default="1,2,3", help="numbers, each a training of every variant (%(default)s)")
    parser.add_argument("--variants", default="all", help="all, stack, less, or names with commas: baseline, a trick's "
                        "for the stack up to it, less-TRICK for all but it (%(default)s)")  # fmt: skip
    parser.add_argument("--teacher", type=Path, help="weights of a trained network: distillation is stacked on all")
    parser.add_argument("--json", type=output_file, help="write the record there, too: benchmarks/results/tricks.json")
    parser.add_argument("--note", default="", help="what the data was and anything odd about the machine")
    options, rest = parser.parse_known_args(list(arguments))
    options.seeds = seeds_of(options.seeds, rest)
    if options.teacher is not None and not options.teacher.is_file():
        raise InputError(
            f"--teacher {options.teacher}: no such file; give a checkpoint, such as runs/NAME/ARM/finetuned.pt"
        )
    return options, parse_recipe(rest, default="tricks/ablation")


def main() -> None:
    """Trains what is missing, writes record and page, prints the tables."""
    options, recipe = parse(sys.argv[1:])
    on_top = [] if options.teacher is None else [distillation(options.teacher)]
    trained = chosen(variants(recipe, TRICKS, on_top), options.variants)
    settings = {
        "seeds": options.seeds,
        "variants": options.variants,
        "teacher": options.teacher and options.teacher.name,
    }
    more = {"target": options.json, "note": options.note, "settings": settings}
    more["command"] = command_line("benchmarks.tricks", sys.argv[1:])
    ablation = Ablation(recipe, trained, options.seeds, [*TRICKS, *on_top], **more)
    try:
        _train_missing(ablation, recipe)
        content = ablation.write()
    except KeyboardInterrupt:
        kept = f"{len(ablation.finished)} of {len(ablation.planned)} trainings are measured"
        where = f", {ablation.folder / 'tricks.html'}" if ablation.finished else ""
        raise KeyboardInterrupt(f"interrupted; {kept}{where}; the same command goes on from there") from None
    if options.json:
        write_json(options.json, content)
    print(text(content))
    print(f"page: {ablation.folder / 'tricks.html'}")
