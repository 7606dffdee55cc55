"""Trains a detector, Faster R-CNN with a feature pyramid, on a trained backbone, and tests it.

fixres detect --backbone runs/demo/fast/finetuned.pt --data scenes                      # drawn scenes, for a CPU
fixres detect --config photos --backbone MODEL --data VOC_OR_COCO_FOLDER                # a few hundred photographs
fixres detect --config paper_voc --backbone MODEL --data VOCDEVKIT
torchrun --nproc-per-node 8 -m fixres detect --config paper_voc --backbone MODEL --data VOCDEVKIT
"""

from __future__ import annotations

from collections.abc import Sequence

from fixres.config.parsing import RECIPES
from fixres.config.parsing import parse as parse_options
from fixres.config.transfer import DetectRecipe


def parse(arguments: Sequence[str]) -> DetectRecipe:
    """The recipe of the command line."""
    recipe = parse_options(DetectRecipe, arguments, __doc__, RECIPES / "detect", default="scenes")
    recipe.check_complete()
    return recipe


def run(recipe: DetectRecipe) -> None:
    """Joins the other processes if there are any, trains, prints the table."""
    from fixres.cli.commands.transfer.run import run_command

    run_command(recipe)
