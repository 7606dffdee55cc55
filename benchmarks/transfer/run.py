"""Which trained backbone makes the better detector or segmentation network? As tables 8 and 9 of arXiv 1812.01187.

python -m benchmarks.transfer --task detect --data scenes --random \\
    --backbones "{small: runs/demo/fast/trained.pt, small + FixRes: runs/demo/fast/finetuned.pt}"
python -m benchmarks.transfer --task segment --data FOLDER --recipe paper_ade20k \\
    --backbones "{large: runs/savings/seed-SEED/large/trained.pt, small: runs/savings/seed-SEED/small/trained.pt}"

Every backbone is trained with every seed, all backbones of a seed before the next seed. SEED in a file's name is the
seed, for backbones that were trained with several. The first backbone is the reference. The run folder
(runs/transfer-TASK, or --output) gets NAME/seed-N/ and transfer.json. After an interruption the same command resumes;
what is finished is not trained again.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.harness.conditions import conditions
from benchmarks.harness.records import record
from benchmarks.harness.resume import command_line, finished_report
from benchmarks.transfer.tables import transfer_table
from fixres.api.transfer import run_recipe
from fixres.cli.output import STDOUT, check_json, put_json
from fixres.config.parsing import RECIPES, parse
from fixres.config.transfer import DetectRecipe, SegmentRecipe, TransferRecipe
from fixres.experiment.report import read_report
from fixres.fault_tolerance.manager import Preempted
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.exit_codes import EXIT_PREEMPTED, leave
from fixres.pipelines.spec import InputError

RANDOM = "random weights"
_METRICS = {"detect": ("map_voc07", "map_voc", "ap"), "segment": ("pixel_accuracy", "mean_iou")}


@dataclass(frozen=True, kw_only=True)
class TransferOptions:
    """Options of the benchmark."""

    task: Literal["detect", "segment"] = "detect"
    """Boxes or masks."""
    data: str = "scenes"
    """Folder of the data, see `fixres detect` and `fixres segment`; or scenes."""
    backbones: dict[str, str] = field(default_factory=dict)
    """Name in the table and checkpoint of each backbone; the first is the reference."""
    random: bool = False
    """Also random weights of the first backbone's network, with trainable BatchNorm."""
    recipe: str = "scenes"
    """Recipe of the command, or a YAML file."""
    epochs: int | None = None
    """Passes over the training images; those of the recipe if null."""
    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """Seeds of new layers, order and crops."""
    num_workers: int = 2
    """Worker processes that read images."""
    work_dir: Path = Path("data")
    """Folder for synthetic scenes."""
    output: Path | None = None
    """Run folder; runs/transfer-TASK if null."""
    note: str = ""
    """A sentence about data and machine, shown below the table."""
    json: Path | None = None
    """JSON file for a copy of the record, such as benchmarks/results/NAME.json; - prints it instead of the table."""

    def __post_init__(self) -> None:
        check_json(self.json)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds={self.seeds} must be different numbers, such as 1,2,3")

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.output or Path("runs") / f"transfer-{self.task}"


class Comparison:
    """The trainings of one command; earlier calls may have finished some of them."""

    def __init__(self, options: TransferOptions, command: str) -> None:
        self._options, self._command = options, command
        names = [*options.backbones, *([RANDOM] if options.random else [])]
        self.planned = {(name, seed): self._recipe(name, seed) for seed in options.seeds for name in names}
        place = Path(options.data)
        self._environment = conditions(place if place.exists() else None)

    def _recipe(self, name: str, seed: int) -> TransferRecipe:
        options = self._options
        kind = DetectRecipe if options.task == "detect" else SegmentRecipe
        file = self._file(name, seed)
        words = ["--config", options.recipe, "--backbone", file, "--data", options.data, "--num-workers",
                 str(options.num_workers), "--work-dir", str(options.work_dir)]  # fmt: skip
        words += [] if options.epochs is None else ["--epochs", str(options.epochs)]
        recipe = parse(kind, words, recipes=RECIPES / options.task)
        if name == RANDOM:
            recipe = replace(recipe, backbone=replace(recipe.backbone, init="random", batchnorm="trainable"))
        slug = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
        return replace(recipe, seed=seed, run_dir=options.folder / slug / f"seed-{seed}", resume="auto")

    def _file(self, name: str, seed: int) -> str:
        backbones = self._options.backbones
        return (next(iter(backbones.values())) if name == RANDOM else backbones[name]).replace("SEED", str(seed))

    def run(self) -> dict[str, Any]:
        """Trains what is missing; writes the record after each training and returns it."""
        for place, recipe in self.planned.items():
            if finished_report(recipe) is None:
                print(f"{place[0]}, seed {place[1]}", file=sys.stderr)
                run_recipe(recipe)
                write_json(self._options.folder / "transfer.json", self.record())
        return self.record()

    def record(self) -> dict[str, Any]:
        """The record of the finished trainings."""
        options, trainings, environment = self._options, [], self._environment | {"command": self._command}
        for (name, seed), recipe in self.planned.items():
            report = finished_report(recipe)
            if report is not None:
                trainings.append(self._training(name, seed, report))
                environment["precision"] = report["environment"]["precision"]
        kept = ("task", "recipe", "seeds", "json", "random", "epochs")
        settings = {name: getattr(options, name) for name in kept} | {"backbones": list(options.backbones)}
        settings["recipe"] = Path(options.recipe).name
        partial = len(trainings) < len(self.planned)
        return record("transfer", settings, environment, options.note, partial, trainings=trainings)

    def _training(self, name: str, seed: int, report: dict[str, Any]) -> dict[str, Any]:
        """What the record keeps of a report.json: fractions and seconds."""
        return {
            "backbone": name,
            "seed": seed,
            "top1": None if name == RANDOM else classifier_top1(Path(self._file(name, seed))),
            **{metric: report["result"][metric] for metric in _METRICS[report["task"]]},
            "model": report["backbone"]["model"],
            "epochs": len(report["epochs"]),
            "num_train": report["data"]["num_train"],
            "num_val": report["data"]["num_val"],
            "train_seconds": report["train_seconds"],
            "wall_seconds": report["wall_seconds"],
            "commit": report["environment"]["commit"],
            "written": report["written"],
        }


def classifier_top1(file: Path) -> float | None:
    """The accuracy of a checkpoint RUN/VARIANT/trained.pt or finetuned.pt in its run's report; None for other files."""
    try:
        variants = read_report(file.parents[1])["variants"]
    except (InputError, IndexError, KeyError, TypeError):
        return None
    variant = next((one for one in variants if one["name"] == file.parent.name), None)
    if variant is None or file.stem not in ("trained", "finetuned"):
        return None
    return variant["top1" if file.stem == "finetuned" else "top1_before_finetune"]


def _without_files(options: TransferOptions, arguments: Sequence[str]) -> list[str]:
    """The arguments of a command, without the names of files on this machine."""
    kept = list(arguments)
    for k, word in enumerate(kept[:-1]):
        if word == "--recipe":
            kept[k + 1] = Path(options.recipe).name
        elif word == "--backbones":
            kept[k + 1] = "'{" + ", ".join(f"{name}: FILE" for name in options.backbones) + "}'"
    return kept


def main() -> None:
    """Trains what is missing, writes the record, prints the table."""
    options = parse(TransferOptions, sys.argv[1:], __doc__)
    if not options.backbones:
        raise InputError('backbones is empty; give --backbones "{NAME: FILE, ...}"')
    comparison = Comparison(options, command_line("benchmarks.transfer", _without_files(options, sys.argv[1:])))
    try:
        found = comparison.run()
    except Preempted as stop:
        leave(f"ended by {stop}; the same command resumes", EXIT_PREEMPTED)
    if options.json != STDOUT:
        print(transfer_table(found))
    put_json(options.json, found)
