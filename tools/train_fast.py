"""Trains a recipe's arms and writes a report: `python tools/train_fast.py [--config RECIPE] [--optim.lr 0.5 ...]`.

Without arguments it runs the demo: makes the data, trains the usual way and the fast way, fixes, tests, compares.
"""

from __future__ import annotations

import sys

from pipelines.console import run


def main() -> None:
    """Parses the recipe, prepares the data, runs the arms, prints the table."""
    from fixres.experiment import run_experiment
    from fixres.hardware import choose_device
    from fixres.recipe import parse_recipe
    from pipelines.opening import PreparedData

    recipe = parse_recipe(sys.argv[1:])
    data = PreparedData(recipe.data, str(choose_device(recipe.device)))
    print(data.engine_why, file=sys.stderr)
    report = run_experiment(recipe, data, data.describe())
    print(report.table())
    print(f"report: {recipe.folder / 'report.html'}")


if __name__ == "__main__":
    run(main)
