"""`fixres.train`: trains the variants of a recipe and writes a report."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from fixres.api.calls import checked
from fixres.config.parsing import RECIPES, RecipeOptions, combined, recipe_of
from fixres.config.recipe import Recipe
from fixres.config.validation import as_plain
from fixres.config.words import CONFIG
from fixres.pipelines.spec import InputError

if TYPE_CHECKING:
    from fixres.experiment.report import Report


@checked
def train(recipe: str | os.PathLike[str] | Recipe = "demo", **settings: Any) -> Report:
    """Trains the variants of a recipe, fine-tunes and tests them, and writes a report into the run folder.

    Args:
        recipe: the name of a recipe (`demo`, `photos`, `tricks/imagenet_rn50_16`, ...), a YAML file, or a `Recipe`.
        **settings: override the recipe; groups are mappings: `optim={"lr": 0.2}`. `data` and `model` may be given as
            text, for `data={"path": ...}` and `model={"name": ...}`.

    Returns:
        The results of all variants, as in `report.json`.

    Raises:
        InputError: an unknown setting or value, or data that cannot be used.

    Example:
        >>> report = fixres.train("photos", data="photos/", variants={"baseline": None})
        >>> report.variants[0].top1
    """
    report = run_recipe(_overridden(recipe, settings))
    if report is None:
        raise InputError("fixres.train returns a report in the main process only; start other processes with torchrun")
    return report


def run_recipe(recipe: Recipe) -> Report | None:
    """Prepares the data of `recipe` and trains. Returns the report in the main process, None in others."""
    from fixres.distributed.process_group import first_main
    from fixres.experiment.experiment import check_before_data, run_experiment
    from fixres.models.precision import choose_device
    from fixres.observability.console import log
    from fixres.pipelines.datasets.prepared import PreparedData

    check_before_data(recipe)  # first, because converting the data may take hours
    data = first_main(lambda: PreparedData(recipe.data, str(choose_device(recipe.device))).prepare())
    log(data.engine_why)
    return run_experiment(recipe, data, data.describe(), data.check_unchanged)


def _overridden(recipe: str | os.PathLike[str] | Recipe, settings: dict[str, Any]) -> Recipe:
    if isinstance(recipe, Recipe):
        if settings:
            raise InputError("give settings with a recipe's name or file; change a Recipe with dataclasses.replace")
        return recipe
    first = {"data": "path", "model": "name"}
    given: list[tuple[tuple[str, ...], Any]] = [(CONFIG, os.fspath(recipe))]
    for name, value in settings.items():
        is_text = name in first and isinstance(value, str | os.PathLike)
        given.append(((name, first[name]) if is_text else (name,), as_plain(value)))
    return recipe_of(combined(RecipeOptions, given, RECIPES))
