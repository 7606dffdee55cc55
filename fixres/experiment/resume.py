"""What the state of a run says of itself, and whether a run may go on from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fixres.config.parsing import as_plain
from fixres.config.recipe import Recipe
from fixres.observability.console import log
from pipelines.spec import InputError

FORMAT, VERSION = "roc-fixres-state", 1
# What may change when a run goes on: where it is, and how fast, not what is trained.
_FREE = ("run_dir", "resume", "device", "profile", "fault_tolerance", "data.num_workers", "data.work_dir", "data.path",
         "data.dali", "optim.batch_size")  # fmt: skip


def description(recipe: Recipe, data: dict[str, Any]) -> dict[str, Any]:
    """What stands in a state beside the variants.

    Args:
        recipe: of the run.
        data: of which "fingerprint" tells what images it is trained on.
    """
    settings = dict(_leaves(as_plain(recipe)))
    # With per_process it follows from the number of processes, which may change.
    size = {} if recipe.optim.per_process is not None else {"optim.batch_size": recipe.optim.batch_size}
    kept = {key: value for key, value in settings.items() if not key.startswith(_FREE)} | size
    return {"format": FORMAT, "version": VERSION, "recipe": kept, "fingerprint": data.get("fingerprint")}


def check_fits(state: dict[str, Any], recipe: Recipe, data: dict[str, Any], folder: Path) -> None:
    """Raises InputError unless a run of `recipe` on `data` may go on from `state`, found in `folder`."""
    if state.get("format") != FORMAT or state.get("version") != VERSION:
        raise InputError(f"{folder}: its states are of another program or version; use --resume no")
    here, there = description(recipe, data), state
    for key in sorted({*here["recipe"], *there["recipe"]}):
        was, is_now = there["recipe"].get(key), here["recipe"].get(key)
        if was != is_now:
            raise InputError(
                f"{folder}: the run to go on with has {key}={was}, this call {is_now}; give the same settings, "
                "another --run_dir, or --resume no"
            )
    if here["fingerprint"] != there["fingerprint"]:
        raise InputError(
            f"{folder}: the data is not what the run began with; bring that back, or start afresh with --resume no"
        )
    log(f"{folder}: going on with the run that was begun there")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
