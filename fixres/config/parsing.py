"""How a recipe file and command-line overrides become a `Recipe`, and a recipe a file again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from fixres.config.recipe import Recipe
from fixres.config.recipe_errors import first_cause
from fixres.config.validation import check_call, check_numbers
from pipelines.spec import InputError

RECIPES = Path(__file__).parents[1] / "recipes"
T = TypeVar("T")


def parse_recipe(arguments: Sequence[str], default: str = "demo") -> Recipe:
    """A recipe from command-line arguments: `--config FILE_OR_NAME` and overrides such as `--optim.lr 0.5`.

    Raises:
        InputError: an unknown key, a value of the wrong kind, or one that its dataclass refuses.
    """
    description = "Trains the variants of a recipe and writes a report. Without --config: the demo."
    recipe = parse(Recipe, named_recipes(arguments, RECIPES, default), description)
    if not recipe.variants.present():
        raise InputError("variants: none is named, or all are null; nothing to train")
    return recipe


def parse(kind: type[T], arguments: Sequence[str], description: str) -> T:
    """An instance of the dataclass `kind` from command-line arguments and `--config` files.

    Raises:
        InputError: as `parse_recipe`.
    """
    from jsonargparse import ArgumentParser, set_parsing_settings

    arguments = [part for argument in arguments for part in _split_config(argument)]
    check_call(kind, arguments)
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="a YAML file with any of the values below")
    parser.add_class_arguments(kind)
    try:
        settings = parser.parse_args(arguments)
        check_numbers(settings.as_dict())
        values = vars(parser.instantiate(settings))
        return kind(**{key: value for key, value in values.items() if key != "config"})
    except InputError:
        raise
    except Exception as error:
        raise InputError(first_cause(error)) from error


def named_recipes(arguments: Sequence[str], folder: Path, default: str | None = None) -> list[str]:
    """Puts the default recipe first if none is named, and replaces a recipe's name by its file in or below `folder`."""
    arguments = [part for argument in arguments for part in _split_config(argument)]
    if "--config" not in arguments and default is not None:
        arguments = ["--config", default, *arguments]
    for i, argument in enumerate(arguments[:-1]):
        if argument == "--config" and not Path(arguments[i + 1]).is_file():
            arguments[i + 1] = str(_recipe_file(arguments[i + 1], folder))
    return arguments


def _recipe_file(name: str, folder: Path) -> Path:
    """The recipe of that name; the folder it lies in need not be named."""
    # Fixes have recipes of their own, and both tools would refuse the other's settings.
    files = sorted(
        file for file in folder.rglob("*.yaml") if file.parent == folder or file.parent != RECIPES / "finetune"
    )
    known = {str(file.relative_to(folder).with_suffix("")): file for file in files}
    bare = name.removesuffix(".yaml")
    found = [known[bare]] if bare in known else [file for file in files if file.stem == bare]
    if len(found) == 1:
        return found[0]
    what = "no such file, and no recipe of that name"
    if found:
        what = "the name of several recipes"
    elif any(file.stem == bare for file in RECIPES.rglob("*.yaml")):
        what = "a recipe of another tool (tools/finetune_fixres.py has those in fix/, tools/train_fast.py all others)"
    elif Path(name).is_dir():
        what = "a folder, not a recipe's file"
    raise InputError(f"--config {name}: {what}; there are {', '.join(known)}")


def _split_config(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes the resolved recipe as YAML that `--config` reads back."""
    import yaml

    path.write_text(yaml.safe_dump(as_plain(recipe), sort_keys=False))


def recipe_text(recipe: Any) -> str:
    """A recipe that `as_plain` made plain, as YAML for people: a line for each group of settings."""
    import yaml

    return yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=110)


def as_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as what YAML and JSON hold."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
