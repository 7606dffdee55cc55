"""The header of a training checkpoint, and whether a run can be resumed from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from fixres.config.augment import AugmentConfig
from fixres.config.legacy import renamed
from fixres.config.parsing import as_plain
from fixres.config.recipe import FinetuneConfig, OptimConfig, Recipe
from fixres.experiment.run_folder import ENVIRONMENT
from fixres.fault_tolerance.manager import FaultTolerance
from fixres.observability.console import log
from fixres.pipelines.spec import InputError

FORMAT, VERSION = "roc-fixres-state", 2
# Settings that may change in a resumed run: where and how fast it runs, not what it trains.
_FREE = ("run_dir", "resume", "device", "profile", "fault_tolerance", "data.num_workers", "data.work_dir", "data.path",
         "data.dali", "optim.batch_size")  # fmt: skip
# Older versions did not have all of these; their runs were as with the defaults.
_DEFAULTS = {
    f"{group}.{field.name}": field.default
    for group, kind in (("augment", AugmentConfig), ("optim", OptimConfig), ("finetune", FinetuneConfig))
    for field in fields(kind)
} | dict.fromkeys(("train_crop.interpolation", "eval_crop.interpolation"), "bilinear")


def header(recipe: Recipe, data: dict[str, Any]) -> dict[str, Any]:
    """What a training checkpoint contains besides the variants; the "fingerprint" of `data` identifies the images."""
    settings = dict(_leaves(as_plain(recipe)))
    # With per_process the batch size follows from the number of processes, which may change.
    size = {} if recipe.optim.per_process is not None else {"optim.batch_size": recipe.optim.batch_size}
    kept = {key: value for key, value in settings.items() if not key.startswith(_FREE)} | size
    return {"format": FORMAT, "version": VERSION, "recipe": kept, "fingerprint": data.get("fingerprint")}


def check_resumable(checkpoint: dict[str, Any], recipe: Recipe, data: dict[str, Any], folder: Path) -> None:
    """Raises InputError unless a run of `recipe` on `data` can be resumed from `checkpoint`, found in `folder`."""
    if checkpoint.get("format") != FORMAT or checkpoint.get("version") != VERSION:
        raise InputError(f"{folder}: its training checkpoints are of another program or version; use --resume no")
    now, then = header(recipe, data), checkpoint
    if type(then["metrics_bytes"]) is not int:
        raise TypeError("metrics_bytes is not a number")
    for key in sorted({*now["recipe"], *then["recipe"]}):
        old, new = then["recipe"].get(key, _default(key)), now["recipe"].get(key)
        if old != new:
            raise InputError(
                f"{folder}: the run to resume has {key}={old}, this call has {new}; give the same settings, another "
                "--output, or --resume no"
            )
    if now["fingerprint"] != then["fingerprint"]:
        raise InputError(f"{folder}: the data is not the data with which the run began; restore it, or use --resume no")
    log(f"{folder}: resuming the run in this folder")


def _default(key: str) -> Any:
    """The default of a setting, for older versions that did not have it."""
    return _DEFAULTS.get(re.sub(r"^variants\.[^.]+\.", "", key))


def upgraded(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A training checkpoint of version 1 with today's keys; others as they are. Tensors are not looked into."""
    if checkpoint.get("format") != FORMAT or checkpoint.get("version") != 1:
        return checkpoint
    recipe = renamed(checkpoint["recipe"])
    absent = [key for key, value in recipe.items() if value is None and key.split(".")[:-1] == ["variants"]]
    variants = {
        name: {key: renamed(value) if key in ("result", "ending", "clock") else value for key, value in state.items()}
        for name, state in (checkpoint.get("variants") or checkpoint["arms"]).items()
    }
    others = {key: checkpoint[key] for key in ("format", "fingerprint", "metrics_bytes")}
    kept = {key: value for key, value in recipe.items() if key not in absent}
    return others | {"version": VERSION, "recipe": kept, "variants": variants}


@contextmanager
def resume_hint(fault_tolerance: FaultTolerance) -> Iterator[None]:
    """Ctrl-C keeps its exit code and gets a line that says how to resume."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if not fault_tolerance.has_checkpoint:
            raise
        raise KeyboardInterrupt(
            f"{str(interrupt) or 'interrupted'}; the same call with --resume auto continues from the last training "
            "checkpoint"
        ) from interrupt


@contextmanager
def mismatch_as_input_error(folder: Path) -> Iterator[None]:
    """What torch and others raise for a training checkpoint that does not fit becomes an InputError."""
    try:
        yield
    except InputError:
        raise
    except (
        AttributeError,
        ArithmeticError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:  # some of torch
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"{folder}: its training checkpoints do not fit this program ({reason}); use the versions in "
            f"{ENVIRONMENT}, or --resume no"
        ) from error


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
