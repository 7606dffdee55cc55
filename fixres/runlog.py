"""The run folder: recipe, environment, metrics as JSON lines, TensorBoard events."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fixres.config import Recipe
from fixres.recipe import save_recipe
from pipelines.spec import InputError

RECIPE, ENVIRONMENT, METRICS = "recipe.yaml", "environment.json", "metrics.jsonl"


class RunLog:
    """Writes what happens in a run, as it happens.

    Args:
        folder: the run folder. An older run there is moved to FOLDER.1, FOLDER.2 and so on.
        recipe: the resolved recipe.
        environment: from `fixres.environment.capture`.
    """

    def __init__(self, folder: Path, recipe: Recipe, environment: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        _move_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        save_recipe(recipe, folder / RECIPE)
        (folder / ENVIRONMENT).write_text(json.dumps(environment, indent=1) + "\n")
        self._metrics = open(folder / METRICS, "a", buffering=1)  # a line at a time, so that a kill loses none
        self._events = SummaryWriter(str(folder / "tensorboard"))

    def write(self, arm: str, kind: str, step: float, result: Any) -> None:
        """One line of metrics, its numbers as TensorBoard scalars ARM/KIND/NAME, and a line for the person watching.

        Args:
            arm: name of the arm.
            kind: "train", "fix" or "test".
            step: epochs done.
            result: a dataclass or dictionary of numbers.
        """
        values = asdict(result) if is_dataclass(result) else dict(result)
        self._metrics.write(json.dumps({"arm": arm, "kind": kind, "step": step, **values}) + "\n")
        tqdm.write(_line(arm, kind, step, values), file=sys.stderr)
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(f"{arm}/{kind}/{name}", value, int(step))

    def close(self) -> None:
        """Flushes and closes the files."""
        self._metrics.close()
        self._events.close()


def _line(arm: str, kind: str, step: float, values: dict[str, Any]) -> str:
    """What a person watching the run, or reading its log, wants to see of a record."""
    head = f"{arm:8}  epoch {step:3g}  {kind:5}"
    if kind == "test":
        return f"{head}  {values['test_res']} px  top-1 {values['top1']:.1%}  loss {values['loss']:.3f}"
    speed, waiting = values["num_images"] / values["seconds"], values["wait_seconds"] / values["seconds"]
    resolution, loss = values["resolution"], values["loss"]
    return f"{head}  {resolution} px  loss {loss:.3f}  {speed:.0f} images/s, {waiting:.0%} of it waiting for data"


def _move_aside(folder: Path) -> None:
    """Renames an older run that measured something; one that ended before its first epoch holds nothing to keep."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / RECIPE).is_file():
        raise InputError(f"{folder} exists and is no run folder; choose another with --run_dir")
    if not (folder / METRICS).is_file() or (folder / METRICS).stat().st_size == 0:
        shutil.rmtree(folder)
        return
    number = 1
    while (older := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(older)
