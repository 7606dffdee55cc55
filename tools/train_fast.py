"""Trains a recipe's variants and writes a report: `python tools/train_fast.py [--config RECIPE] [--optim.lr 0.5 ...]`.

Without arguments it runs the demo: it draws the data, trains the usual way and the fast way, fine-tunes, evaluates and
compares. On several GPUs: `torchrun --nproc-per-node 8 tools/train_fast.py ...`, or `srun` (docs/distributed.md).
`--resume auto` continues a run that was ended (docs/reliability.md).
"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace

from fixres.config.recipe import Recipe
from fixres.pipelines.runtime.exit_codes import EXIT_PREEMPTED, leave, run


def main() -> None:
    """Parses the recipe, joins the other processes if there are any, and trains."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _leave_early)
    from fixres.config.parsing import parse_recipe

    recipe = parse_recipe(sys.argv[1:])  # before the imports that take seconds, for --help and mistakes
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
    """Trains, prints the table."""
    from fixres.api.recipes import run_recipe

    report = run_recipe(recipe)
    if report is not None:
        print(report.table())
        print(f"report: {recipe.folder / 'report.html'}")


if __name__ == "__main__":
    run(main)
