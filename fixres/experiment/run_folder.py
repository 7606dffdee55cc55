"""The run folder: recipe, environment, metrics as JSON lines, TensorBoard events."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from fixres.config.parsing import save_recipe
from fixres.config.recipe import Recipe
from fixres.distributed.process_group import is_main
from fixres.fault_tolerance.checkpoints import CHECKPOINTS
from fixres.observability.console import log
from fixres.pipelines.runtime.atomic_files import open_own, os_errors_name, write_json
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

RECIPE, ENVIRONMENT, METRICS = "recipe.yaml", "environment.json", "metrics.jsonl"


class RunLog:
    """Writes the metrics of a run while it runs, in the main process only.

    Args:
        folder: the run folder. An older run there is moved to FOLDER.1, FOLDER.2 and so on.
        recipe: the resolved recipe.
        environment: from `fixres.observability.environment.capture`.
        resume_at: continues the run in the folder; its metrics are truncated to this many bytes.
    """

    def __init__(self, folder: Path, recipe: Recipe, environment: dict[str, Any], resume_at: int | None = None) -> None:
        self.folder, self._metrics, self._events = folder, None, None
        if not is_main():
            return
        from torch.utils.tensorboard import SummaryWriter

        if resume_at is None:
            _move_aside(folder)
            folder.mkdir(parents=True, exist_ok=True)
            with os_errors_name(folder / RECIPE):
                save_recipe(recipe, folder / RECIPE)
            write_json(folder / ENVIRONMENT, environment)
        else:
            _truncate(folder / METRICS, resume_at)
            _say_change(folder, environment)
        self._metrics = open(
            folder / METRICS, "a", buffering=1, opener=open_own
        )  # a line at a time, so that a kill loses none
        self._events = SummaryWriter(str(folder / "tensorboard"))

    def write(self, variant: str, kind: str, step: float, result: Any) -> None:
        """Writes a line of metrics, its numbers as TensorBoard scalars VARIANT/KIND/NAME, and a line to the terminal.

        Args:
            variant: name of the variant.
            kind: "train", "finetune" or "test".
            step: epochs done.
            result: a dataclass or dictionary of numbers.
        """
        if self._metrics is None or self._events is None:
            return
        values = asdict(result) if is_dataclass(result) else dict(result)
        with os_errors_name(self.folder / METRICS):
            self._metrics.write(json.dumps({"variant": variant, "kind": kind, "step": step, **values}) + "\n")
        log(_line(variant, kind, step, values))
        for name, value in values.items():
            if isinstance(value, int | float):
                self._events.add_scalar(f"{variant}/{kind}/{name}", value, int(step))

    @property
    def num_bytes(self) -> int:
        """Size of the metrics so far."""
        return 0 if self._metrics is None else self._metrics.tell()

    def close(self) -> None:
        """Flushes and closes the files."""
        for file in (self._events, self._metrics):
            if file is not None:
                with os_errors_name(self.folder / METRICS):  # closing writes a line again that did not fit on the disk
                    file.close()


def _truncate(metrics: Path, num_bytes: int) -> None:
    """Removes lines that were written after the training checkpoint; the resumed run writes them again.

    Training checkpoints are synchronized with the disk, metrics are not: after a power failure lines may be missing,
    and the last one may be incomplete.
    """
    with open(metrics, "ab+", opener=open_own) as file:
        file.seek(0)
        kept = file.read(num_bytes)
        file.truncate(len(kept) if len(kept) == num_bytes else kept.rfind(b"\n") + 1)


def _say_change(folder: Path, environment: dict[str, Any]) -> None:
    """Says it if a resumed run has another precision: what "auto" takes depends on the machine and on the version."""
    try:
        began = decode_json((folder / ENVIRONMENT).read_bytes())["precision"]
    except (OSError, ValueError, LookupError, TypeError):  # nothing depends on this file
        return
    if began != (now := environment.get("precision")):
        log(f"{folder}: the run began with precision {began}; on this machine it continues with {now}")


def _line(variant: str, kind: str, step: float, values: dict[str, Any]) -> str:
    """A record as a line for the terminal."""
    head = f"{variant:8}  epoch {step:3g}  {kind:8}"
    if kind == "test" and "top1" not in values:  # of detection or segmentation
        shown = [f"{name} {value:.1%}" for name, value in values.items() if isinstance(value, float)]
        return f"{head}  {', '.join(shown)}"
    if kind == "test":
        return f"{head}  {values['test_res']} px  top-1 {values['top1']:.1%}  loss {values['loss']:.3f}"
    speed, waiting = values["num_images"] / values["seconds"], values["wait_seconds"] / values["seconds"]
    resolution, loss = values["resolution"], values["loss"]
    return f"{head}  {resolution} px  loss {loss:.3f}  {speed:.0f} images/s, waiting for data {waiting:.0%}"


def _move_aside(folder: Path) -> None:
    """Renames an older run if it has something to keep: an epoch, a training checkpoint, or the reason why it ended."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _is_run(folder):
        raise InputError(f"{folder} exists and is not a run folder; choose another with --output")
    kept = [
        folder / METRICS,
        *folder.glob(f"{CHECKPOINTS}/*.pt"),
        *(path for path in folder.iterdir() if _is_note(path)),
    ]
    if not any(path.is_file() and path.stat().st_size for path in kept):
        _clear(folder)
        return
    number = 1
    while (older := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(older)


def _is_run(folder: Path) -> bool:
    """Whether a run began in the folder. A run that was killed at once, or stalled, may have no recipe."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    return RECIPE in names or all(_is_note(folder / name) for name in names)


def _is_note(path: Path) -> bool:
    """Whether the file says why a run ended."""
    return path.name.startswith(("stalled-rank", "nonfinite-"))


def _clear(folder: Path) -> None:
    """Removes everything except the recipe, which marks a run folder if this process is killed now."""
    for path in folder.iterdir():
        if path.name != RECIPE:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
