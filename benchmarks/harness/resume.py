"""Trainings that a benchmark runs one after another: an interrupted command resumes where it stopped."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from fixres.cli.data import check_data
from fixres.cli.output import STDOUT, check_json, put_json
from fixres.config.parsing import RECIPES, RecipeOptions, parse
from fixres.config.recipe import Recipe
from fixres.config.validation import as_plain
from fixres.experiment.report import read_report
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.exit_codes import EXIT_PREEMPTED, leave
from fixres.pipelines.spec import InputError

T = TypeVar("T", bound="TrainingsOptions")
_LOCAL = ("--output", "--work-dir", "--json", "--note")  # not useful on another machine
_IRRELEVANT = ("run_dir", "resume", "fault_tolerance")  # settings that do not change what is measured
_PATHS = {"--data": "FOLDER", "--teacher": "FILE", "--step-record": "FILE"}


class Trainings(ABC):
    """The trainings of one command in one folder; earlier calls may have finished some of them.

    Args:
        name: of record and page, in the folder.
        folder: where they go.
        planned: title and recipe of each training, in order.

    Attributes:
        finished: what the record keeps of each finished training, by its index in `planned`.
    """

    write_page: Callable[[dict[str, Any], Path], None]
    """Writes a record as HTML; a static method of each subclass."""

    def __init__(self, name: str, folder: Path, planned: Sequence[tuple[str, Recipe]]) -> None:
        self.planned = list(planned)
        self._json, self.page_file = folder / f"{name}.json", folder / f"{name}.html"
        # Before any training, so that a folder with other settings is refused at once.
        self.finished = {k: found for k in range(len(self.planned)) if (found := self.found(k)) is not None}

    @property
    def missing(self) -> list[int]:
        """Indices in `planned` of trainings that are not finished."""
        return [k for k in range(len(self.planned)) if k not in self.finished]

    @abstractmethod
    def found(self, k: int) -> dict[str, Any] | None:
        """What the record keeps of a training; None if it is not finished."""

    @abstractmethod
    def train(self, k: int, data: Any) -> None:
        """Trains on `data`, a `PreparedData`."""

    def result(self, k: int) -> str:  # noqa: ARG002 (of the finished training)
        """A finished training in a few words."""
        return "trained"

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The record of the finished trainings."""

    def write(self) -> dict[str, Any]:
        """Writes record and page atomically; returns the record."""
        record = self.record()
        write_json(self._json, record)
        self.write_page(record, self.page_file)
        return record

    def train_missing(self) -> None:
        """Trains what is not finished, and writes record and page after each training."""
        from fixres.models.precision import choose_device
        from fixres.pipelines.datasets.prepared import PreparedData

        missing = self.missing
        if not missing:
            return
        recipe, start = self.planned[0][1], time.perf_counter()
        data = PreparedData(recipe.data, str(choose_device(recipe.device))).prepare()  # converts once for all trainings
        print(data.engine_why, file=sys.stderr)
        with tqdm(total=len(self.planned), initial=len(self.finished), unit=" trainings", disable=None) as bar:
            for done, k in enumerate(missing, 1):
                title = self.planned[k][0]
                bar.set_description_str(title)
                self.train(k, data)
                self.finished[k] = self.found(k) or {}
                self.write()
                left = f"about {(time.perf_counter() - start) / done * (len(missing) - done) / 60:.0f} min left"
                tqdm.write(f"{done} of {len(missing)}: {title}: {self.result(k)}; {left}", file=sys.stderr)
                bar.update()

    def run(self, target: Path | None, text: Callable[[dict[str, Any]], str]) -> None:
        """The benchmark: trains what is missing, writes record (also to `target`) and page, prints the tables."""
        from fixres.fault_tolerance.manager import Preempted

        try:
            self.train_missing()
            record = self.write()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted; {self._kept()}; the same command resumes") from None
        except Preempted as stop:
            leave(f"ended by {stop}; {self._kept()}; the same command with --resume auto resumes", EXIT_PREEMPTED)
        if target != STDOUT:
            print(text(record))
            print(f"page: {self.page_file}")
        put_json(target, record)

    def _kept(self) -> str:
        where = f", {self.page_file}" if self.finished else ""
        return f"{len(self.finished)} of {len(self.planned)} trainings are finished{where}"


def finished_report(recipe: Recipe) -> dict[str, Any] | None:
    """The report of a finished training with the settings of `recipe`; None if its folder has no report.

    Raises:
        InputError: the report is damaged, or the training had other settings.
    """
    file = recipe.folder / "report.json"
    if not file.is_file():
        return None
    try:
        report = read_report(recipe.folder)
        there = _flat(report["recipe"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{file} is damaged; remove its folder and run the command again") from None
    here = _flat(as_json(as_plain(recipe)))
    for key in sorted(here.keys() | there.keys()):
        if not key.startswith(_IRRELEVANT) and here.get(key) != there.get(key):
            raise InputError(
                f"{recipe.folder} was trained with {key}={there.get(key)}, but now {key}={here.get(key)}; "
                "use the same settings or another --output"
            )
    return report


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys, without nulls, so that a new optional setting is not a change."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def as_json(value: Any) -> Any:
    """The value as a JSON file returns it: tuples become lists, keys become text."""
    return json.loads(json.dumps(value))


def command_line(module: str, arguments: Sequence[str]) -> str:
    """The command without paths of this machine, for the record."""
    kept, words = ["python", "-m", module], list(arguments)
    while words:
        word, _, value = words.pop(0).partition("=")
        name = word.replace("_", "-") if word.startswith("--") else word
        if word.startswith("--") and not value and words and not words[0].startswith("--"):
            value = words.pop(0)
        if name == "--config":
            value = Path(value).name
        elif name in _PATHS and Path(value).exists():
            value = _PATHS[name]
        if name not in _LOCAL:
            kept += [name, value] if value else [name]
    return " ".join(kept)


@dataclass(frozen=True)
class TrainingsOptions(RecipeOptions):
    """A recipe, the seeds that it is trained with, and the record."""

    seeds: list[int] = field(default_factory=lambda: [1, 2, 3])
    """One training for each; the recipe's own seed has no effect."""
    note: str = ""
    """A sentence about data and machine, shown below the table."""
    json: Path | None = None
    """JSON file for a copy of the record, such as benchmarks/results/NAME.json; - prints it instead of the table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_json(self.json)
        if len({*self.seeds}) < len(self.seeds) or not self.seeds:
            raise InputError(f"seeds={self.seeds} must be different numbers, such as 1,2,3")


def parse_trainings(kind: type[T], arguments: Sequence[str], description: str, default_recipe: str) -> T:
    """Options of a benchmark that trains a recipe."""
    if any(word.split("=")[0] == "--seed" for word in arguments):
        raise InputError("--seed has no effect here; use --seeds 1,2,3")
    options = parse(kind, arguments, description, RECIPES, default_recipe)
    check_data(options.data)
    return options
