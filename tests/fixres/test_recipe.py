"""Recipes: files, overrides, and one line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.recipe import RECIPES, parse_recipe, save_recipe
from pipelines.spec import InputError


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_parses_and_survives_saving(path: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(["--config", path.stem])
    save_recipe(recipe, tmp_path / "resolved.yaml")
    assert parse_recipe(["--config", str(tmp_path / "resolved.yaml")]) == recipe


def test_the_demo_is_the_default_and_overrides_reach_deep() -> None:
    recipe = parse_recipe(["--optim.lr", "0.25", "--arms.fast.epochs=3", "--data.engine", "torch"])
    assert recipe.name == "demo"
    assert recipe.optim.lr == 0.25
    assert recipe.arms.fast is not None and recipe.arms.fast.epochs == 3
    assert recipe.data.engine == "torch"


def test_null_leaves_an_arm_out() -> None:
    assert list(parse_recipe(["--arms.baseline", "null"]).arms.present()) == ["fast"]


def test_the_sweep_contains_every_test_resolution() -> None:
    recipe = parse_recipe(["--sweep", "[64]", "--arms.fast.test_res", "144", "--arms.baseline.test_res", "128"])
    assert recipe.sweep_resolutions() == [64, 128, 144]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optim.lrr", "3"], "--optim.lrr"),
        (["--optim.lr", "fast"], 'optim.lr".*fast'),
        (["--optim.lr", "-1"], "optim.lr=-1.0 must be above 0"),
        (["--config", "nowhere"], "--config nowhere: no such file, and no recipe of that name; there are .*demo"),
        (["--config=nowhere"], "no such file"),
        (["--seed", "-3"], "seed=-3"),
        (["--name", "../up"], "it names a folder"),
        (["--eval_crop.crop_pct", "1.5"], "crop_pct=1.5"),
        (["--train_crop.scale", "[0.5, 0.2]"], "scale="),
        (["--sweep", "[3]"], "resolution=3 is impossible"),
        (["--arms.baseline", "null", "--arms.fast", "null"], "nothing to train"),
        (["--data.on_bad", "ignore"], "on_bad"),
        (["--optim.label_smoothing", "1"], "label_smoothing"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_recipe(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim: {lr: 1, rate: 3}", "rate"),
        ("arms: {fast: {fix: {epoch: 3}}}", "unknown key arms.fast.fix.epoch"),
        ("optim: [1", "line 1"),
        ("colour: red", "colour"),
    ],
)
def test_mistakes_in_a_file_are_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        parse_recipe(["--config", str(tmp_path / "recipe.yaml")])
    assert "\n" not in str(caught.value)
