"""What `fixres detect` and `fixres segment` share."""

from __future__ import annotations

import signal
from dataclasses import replace

from fixres.config.transfer import TransferRecipe
from fixres.pipelines.runtime.exit_codes import EXIT_PREEMPTED, leave

_RESUME = "the same call with --resume auto continues from the last training checkpoint, if any"


def run_command(recipe: TransferRecipe) -> None:
    """Trains in this process and those that were started with it, and prints the table."""
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, _leave_early)
    from fixres.api.transfer import run_recipe
    from fixres.distributed.process_group import joined
    from fixres.fault_tolerance.manager import Preempted

    with joined(recipe.device) as device:
        try:
            report = run_recipe(replace(recipe, device=device))
        except Preempted as stop:
            leave(f"ended by {stop}; {_RESUME}", EXIT_PREEMPTED)
        if report is not None:
            print(report.table())
            print(f"report: {recipe.folder / 'report.html'}")


def _leave_early(number: int, _: object) -> None:
    """Handles signals before and after the training; `fixres.fault_tolerance.manager` handles them during it."""
    leave(f"ended by {signal.Signals(number).name}; {_RESUME}", EXIT_PREEMPTED)
