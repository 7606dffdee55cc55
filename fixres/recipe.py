"""How a recipe file and command-line overrides become a `Recipe`, and a recipe a file again."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from fixres.config import Recipe
from pipelines.spec import InputError
from pipelines.writing import atomic_file

RECIPES = Path(__file__).parent / "recipes"
T = TypeVar("T")


def parse_recipe(arguments: Sequence[str], default: str = "demo") -> Recipe:
    """A recipe from command-line arguments: `--config FILE_OR_NAME` and overrides such as `--optim.lr 0.5`.

    Raises:
        InputError: an unknown key, a value of the wrong kind, or one that its dataclass refuses.
    """
    description = "Trains the arms of a recipe and writes a report. Without --config: the demo."
    recipe = parse(Recipe, named_recipes(arguments, RECIPES, default), description)
    if not recipe.arms.present():
        raise InputError("arms: none is named, or all are null; nothing to train")
    return recipe


def parse(kind: type[T], arguments: Sequence[str], description: str) -> T:
    """An instance of the dataclass `kind` from command-line arguments and `--config` files.

    Raises:
        InputError: as `parse_recipe`.
    """
    from jsonargparse import ArgumentParser, set_parsing_settings

    arguments = [part for argument in arguments for part in _split_config(argument)]
    _refuse_classes(arguments)
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="a YAML file with any of the values below")
    parser.add_class_arguments(kind)
    try:
        values = vars(parser.instantiate(parser.parse_args(arguments)))
        return kind(**{key: value for key, value in values.items() if key != "config"})
    except InputError:
        raise
    except Exception as error:
        raise InputError(_first_cause(error)) from error


def _refuse_classes(arguments: Sequence[str]) -> None:
    """Raises InputError for a file that names a class: the parser imports what stands under `class_path`."""
    import yaml

    for option, name in pairwise(arguments):
        if option != "--config" or not Path(name).is_file():
            continue
        try:
            content = yaml.safe_load(Path(name).read_bytes())
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError):
            continue  # the parser says what is wrong with it
        if _has_key(content, "class_path"):
            raise InputError(f"{name}: class_path is no setting; a recipe names no classes")


def _has_key(content: Any, key: str) -> bool:
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not isinstance(value, dict | list):
            continue
        seen.add(id(value))  # YAML can make a value its own part
        if isinstance(value, dict) and key in value:
            return True
        waiting.extend(value.values() if isinstance(value, dict) else value)
    return False


def named_recipes(arguments: Sequence[str], folder: Path, default: str | None = None) -> list[str]:
    """Puts the default recipe first if none is named, and replaces a recipe's name by its file in `folder`."""
    arguments = [part for argument in arguments for part in _split_config(argument)]
    if "--config" not in arguments and default is not None:
        arguments = ["--config", default, *arguments]
    for i, argument in enumerate(arguments[:-1]):
        named = folder / f"{arguments[i + 1]}.yaml"
        if argument != "--config" or Path(arguments[i + 1]).is_file():
            continue
        if not named.is_file():
            files = (*folder.glob("*.yaml"), *folder.glob("tricks/*.yaml"))
            known = ", ".join(sorted(str(file.relative_to(folder).with_suffix("")) for file in files))
            raise InputError(
                f"--config {arguments[i + 1]}: no such file, and no recipe of that name; there are {known}"
            )
        arguments[i + 1] = str(named)
    return arguments


def _split_config(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


def _first_cause(error: BaseException) -> str:
    """The message of the refusal at the bottom of a parser's nested errors, on one line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).split())
    # Inside an optional group the parser lists every alternative it tried; the refused key says it all.
    if unknown := re.search(r"Option '([^']+)' is not accepted", text):
        groups = re.findall(r'Parser key "([^"]+)"', text)
        return f"unknown key {'.'.join([*groups, unknown[1]])}; see --help"
    return f"{text}; see --help"


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes the resolved recipe as YAML that `--config` reads back."""
    import yaml

    path.write_text(yaml.safe_dump(as_plain(recipe), sort_keys=False))


def recipe_text(recipe: Any) -> str:
    """A recipe that `as_plain` made plain, as YAML for people: a line for each group of settings."""
    import yaml

    return yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=110)


def write_json(path: Path, content: Any) -> None:
    """Writes what `as_plain` gives as JSON; `path` appears only when the file is complete."""
    with atomic_file(path, overwrite=True) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def as_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as what YAML and JSON hold."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
