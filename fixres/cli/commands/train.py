"""Trains the variants of a recipe, fine-tunes and tests them, and writes a report.

fixres train                                                 # the demo, on drawn scenes
fixres train --config photos --data FOLDER                   # your photographs: the usual way and the fast way
fixres train --config photos --data FOLDER --variant fast    # only one run
fixres train --config photos --data FOLDER --resume auto     # continues a run that was ended
torchrun --nproc-per-node 8 -m fixres train ...              # several GPUs; with srun, too
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace

from fixres.cli.data import check_data
from fixres.config.parsing import parse_recipe
from fixres.config.recipe import Recipe
from fixres.pipelines.runtime.exit_codes import EXIT_PREEMPTED, leave


def parse(arguments: Sequence[str]) -> Recipe:
    """The recipe that the command line names."""
    recipe = parse_recipe(arguments, description=__doc__)
    check_data(recipe.data)  # before the imports that take seconds
    return recipe


def run(recipe: Recipe) -> None:
    """Joins the other processes if there are any, trains, prints the table."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _leave_early)
    from fixres.distributed.process_group import joined
    from fixres.fault_tolerance.manager import Preempted

    with joined(recipe.device) as device:
        try:
            _train(replace(recipe, device=device))
        except Preempted as stop:
            leave(
                f"ended by {stop}; the same call with --resume auto continues from the saved training checkpoint",
                EXIT_PREEMPTED,
            )


def _leave_early(number: int, _: object) -> None:
    """Handles signals before and after the training; `fixres.fault_tolerance.manager` handles them during it."""
    name = signal.Signals(number).name
    leave(
        f"ended by {name}; the same call with --resume auto continues from the last training checkpoint, if any",
        EXIT_PREEMPTED,
    )


def _train(recipe: Recipe) -> None:
    from fixres.api.recipes import run_recipe

    report = run_recipe(recipe)
    if report is not None:
        print(report.table())
        print(f"report: {recipe.folder / 'report.html'}")
