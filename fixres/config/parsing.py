"""How recipe files and command-line options become a dataclass such as `Recipe`, and a recipe a file again."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fixres.config.legacy import renamed
from fixres.config.recipe import Recipe
from fixres.config.validation import as_plain, set_value, settings, unknown_key, validated
from fixres.pipelines.spec import InputError

RECIPES = Path(__file__).parents[1] / "recipes"
T = TypeVar("T")
_WHOLE = ("kwargs", "model_kwargs")  # mappings that a later one replaces; others are merged
_MAX_VALUES = 10_000  # a recipe has about a hundred; YAML aliases can expand to any number


def parse_recipe(arguments: Sequence[str], default: str = "demo") -> Recipe:
    """A recipe from command-line arguments: `--config FILE_OR_NAME` and overrides such as `--optim.lr 0.5`.

    Raises:
        InputError: an unknown key, a value of the wrong kind, or one that its dataclass refuses.
    """
    description = "Trains the variants of a recipe and writes a report. Without --config: the demo."
    recipe = parse(Recipe, named_recipes(arguments, RECIPES, default), description)
    if not recipe.variants:
        raise InputError("variants: the recipe names none, or all are null; nothing to train")
    return recipe


def parse(kind: type[T], arguments: Sequence[str], description: str) -> T:
    """An instance of the dataclass `kind` from `--config` files and dotted options; later ones override earlier ones.

    Raises:
        InputError: as `parse_recipe`.
    """
    if {"-h", "--help"} & set(arguments):
        _print_help(kind, description)
        raise SystemExit(0)
    values = {field.name: as_plain(field.default_factory()) for field in fields(kind)  # type: ignore[arg-type]
              if field.default_factory is not MISSING}  # fmt: skip
    texts: dict[tuple[str, ...], str] = {}
    for name, text in _options(arguments):
        if name == "config":
            values = _merged(values, renamed(_read_file(Path(text))))
        else:
            path, value = tuple(name.split(".")), _read_value(text)
            _check_variant(kind, values, path, value)
            texts[path] = text
            if isinstance(value, dict) and not set(path) & set(_WHOLE):
                group: dict[str, Any] = {}
                set_value(group, path, value)
                values = _merged(values, group)
            else:
                set_value(values, path, value)
    if isinstance(variants := values.get("variants"), dict):
        values["variants"] = {name: variant for name, variant in variants.items() if variant is not None}
    return validated(kind, values, texts)


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
    """The recipe of that name; its folder may be omitted."""
    # The recipes for fine-tuning have other settings than those for training, so neither tool lists the other's.
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
        what = (
            "a recipe of another tool (tools/finetune_fixres.py has those in finetune/, tools/train_fast.py the others)"
        )
    elif Path(name).is_dir():
        what = "a folder, not a recipe file"
    raise InputError(f"--config {name}: {what}; there are {', '.join(known)}")


def _split_config(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each option, `--NAME TEXT` or `--NAME=TEXT`."""
    waiting = list(arguments)
    while waiting:
        option, equals, text = waiting.pop(0).partition("=")
        if not option.startswith("--"):
            raise InputError(f"{option}: options begin with --; see --help")
        if not equals:
            if not waiting or waiting[0].startswith("--"):
                raise InputError(f"{option} needs a value; see --help")
            text = waiting.pop(0)
        yield option[2:], text


def _check_variant(kind: type, values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """An option cannot reach into a variant that the recipe does not have: its name may be a typo."""
    known = values.get("variants")
    if path[0] == "variants" and isinstance(known, dict) and (len(path) > 2 or value is None) and path[1] not in known:
        raise unknown_key(kind, path[:2], list(known))


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = old | new
    for key in old.keys() & new.keys() - set(_WHOLE):
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            merged[key] = _merged(old[key], new[key])
    return merged


class _Loader(yaml.SafeLoader):
    """SafeLoader with a limit on merge keys; dates are text, and 1e-3 is a number."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MAX_VALUES:  # merge keys multiply
            raise ValueError(f"more than {_MAX_VALUES} values")


_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+$"), [*"-+.0123456789"]
)


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"--config {path}: {'is a folder' if path.is_dir() else 'no such file'}; give a YAML file")
    try:
        content = _read_yaml(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a recipe; it must hold settings, such as 'seed: 1'")
    return content


def _read_value(text: str) -> Any:
    try:
        return _read_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _read_yaml(text: str | bytes) -> Any:
    content = _Loader(text).get_single_data()
    waiting, num_values = [content], 0
    while waiting:  # counts what aliases refer to each time
        value, num_values = waiting.pop(), num_values + 1
        if num_values > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES} values")
        waiting += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return content


def _print_help(kind: type, description: str) -> None:
    parser = argparse.ArgumentParser(
        description=description, usage="%(prog)s [--help] [--config FILE] [--SETTING VALUE ...]", add_help=False
    )
    parser.add_argument("--help", action="store_true", help="show this message")
    parser.add_argument("--config", help="a YAML file with any of the settings below; it can be given several times")
    groups: dict[str, Any] = {}
    for name, setting in settings(kind).items():
        title = setting["group"].rstrip(".")
        groups[title] = groups.get(title) or parser.add_argument_group(title)
        default = f" (default: {json.dumps(setting['default'])})" if "default" in setting else ""
        types = [json.dumps(one.get("enum") or one.get("const") or one.get("type"))
                 for one in setting.get("anyOf", [setting])]  # fmt: skip
        text = f"{setting.get('description', '')}{default}".replace("%", "%%")
        groups[title].add_argument(f"--{name}", metavar="|".join(types).replace('"', ""), help=text)
    parser.print_help()


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes the resolved recipe as YAML that `--config` reads back."""
    path.write_text(yaml.safe_dump(as_plain(recipe), sort_keys=False))


def recipe_text(recipe: Any) -> str:
    """A recipe that `as_plain` made plain, as YAML for people: a line for each group of settings."""
    return yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=110)
