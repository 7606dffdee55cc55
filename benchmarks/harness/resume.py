"""What earlier calls of a benchmark left in its folder: trainings that need not be repeated; and how it was called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fixres.config.parsing import as_plain
from fixres.config.recipe import Recipe
from fixres.experiment.report import read_report
from pipelines.spec import InputError

_OWN_PLACES = ("--run_dir", "--data.work_dir", "--json", "--note")  # of no use on another machine
_NOT_TRAINED = ("run_dir", "resume", "fault_tolerance")  # settings that do not change what is measured
_PATHS = {"--data.path": "FOLDER", "--teacher": "FILE"}


def finished_report(recipe: Recipe) -> dict[str, Any] | None:
    """The report of a training that came to its end with the settings of `recipe`; None if there is none.

    Raises:
        InputError: it is damaged, or was made with other settings.
    """
    file = recipe.folder / "report.json"
    if not file.is_file():
        return None
    try:
        report = read_report(recipe.folder)
        there = _flat(report["recipe"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{file} is damaged; remove its folder to train that seed again") from None
    here = _flat(as_json(as_plain(recipe)))
    for key in sorted(here.keys() | there.keys()):
        if not key.startswith(_NOT_TRAINED) and here.get(key) != there.get(key):
            raise InputError(
                f"{recipe.folder} was trained with {key}={there.get(key)}, now it is {here.get(key)}; "
                "give the same settings or another --run_dir"
            )
    return report


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys; nulls are left out, so that a new optional setting is no change."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        elif value is not None:
            found[f"{prefix}{key}"] = value
    return found


def as_json(value: Any) -> Any:
    """As it comes back from a JSON file: tuples as lists, keys as text."""
    return json.loads(json.dumps(value))


def seeds_of(text: str, rest: Sequence[str]) -> list[int]:
    """The numbers of `--seeds`, each once; `rest` are the other words of the command line."""
    try:
        seeds = list(dict.fromkeys(int(seed) for seed in text.split(",")))
    except ValueError:
        raise InputError(f"--seeds {text} must be numbers with commas, such as 1,2,3") from None
    if any(word.split("=")[0] == "--seed" for word in rest):
        raise InputError("--seed has no meaning here; give --seeds 1,2,3")
    return seeds


def command_line(module: str, arguments: Sequence[str]) -> str:
    """The command for someone else's machine: no paths of this one."""
    kept, words = ["python", "-m", module], iter(arguments)
    for word in words:
        name, _, value = word.partition("=")
        if not name.startswith("--"):
            kept.append(word)
            continue
        value = value or next(words, "")
        if name == "--config":
            value = Path(value).name
        elif name in _PATHS and Path(value).exists():
            value = _PATHS[name]
        if name not in _OWN_PLACES:
            kept += [name, value]
    return " ".join(kept)
