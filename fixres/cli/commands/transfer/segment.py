"""Trains a segmentation network, FCN or DeepLabV3, on the dilated stages of a trained backbone, and tests it.

fixres segment --backbone runs/demo/fast/finetuned.pt --data scenes                     # drawn scenes, for a CPU
fixres segment --config paper_ade20k --backbone MODEL --data ADEChallengeData2016
fixres segment --config paper_ade20k --backbone MODEL --data FOLDER --decoder deeplabv3
torchrun --nproc-per-node 8 -m fixres segment --config paper_ade20k --backbone MODEL --data ADEChallengeData2016
"""

from __future__ import annotations

from collections.abc import Sequence

from fixres.config.parsing import RECIPES
from fixres.config.parsing import parse as parse_options
from fixres.config.transfer import SegmentRecipe


def parse(arguments: Sequence[str]) -> SegmentRecipe:
    """The recipe of the command line."""
    recipe = parse_options(SegmentRecipe, arguments, __doc__, RECIPES / "segment", default="scenes")
    recipe.check_complete()
    return recipe


def run(recipe: SegmentRecipe) -> None:
    """Joins the other processes if there are any, trains, prints the table."""
    from fixres.cli.commands.transfer.run import run_command

    run_command(recipe)
