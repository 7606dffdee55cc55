"""How recipe files and command-line options become a dataclass such as `Recipe`, and a recipe a file again."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from fixres.config.legacy import renamed
from fixres.config.recipe import Recipe
from fixres.config.validation import group_type, member_type, unknown_key, validated
from fixres.config.yaml_files import read_settings, read_value
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
    if not recipe.variants:
        raise InputError("variants: the recipe names none, or all are null; nothing to train")
    return recipe


def parse(kind: type[T], arguments: Sequence[str], description: str) -> T:
    """An instance of the dataclass `kind` from `--config` files and dotted options; later ones override earlier ones.

    Raises:
        InputError: as `parse_recipe`.
    """
    if {"-h", "--help"} & set(arguments):
        from fixres.config.help import print_help

        print_help(kind, description)
        raise SystemExit(0)
    values = default_groups(kind)
    for name, text in _options(arguments):
        if name == "config":
            values = _merged(kind, values, renamed(read_settings(Path(_given(name, text)))))
        else:
            _set(kind, values, name, text)
    return validated(kind, _without_null(kind, values))


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


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Name and text of each option, `--NAME TEXT` or `--NAME=TEXT`; None if there is no text."""
    waiting = list(arguments)
    while waiting:
        option, equals, text = waiting.pop(0).partition("=")
        if not option.startswith("--"):
            raise InputError(f"{option}: options begin with --; see --help")
        if not equals and waiting and not waiting[0].startswith("--"):
            equals, text = "=", waiting.pop(0)
        yield option[2:], text if equals else None


def _given(name: str, text: str | None) -> str:
    if text is None:
        raise InputError(f"--{name} needs a value; see --help")
    return text


def default_groups(kind: type) -> dict[str, Any]:
    """The groups of settings that are on by default, as nested mappings, for files and options to be merged into."""
    groups: dict[str, Any] = {}
    hints = typing.get_type_hints(kind)
    for field in fields(kind):  # type: ignore[arg-type]
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if is_dataclass(default) or (default is not None and group_type(hints[field.name])):
            groups[field.name] = as_plain(default)
    return groups


def _set(kind: type, values: dict[str, Any], name: str, text: str | None) -> None:
    """Sets the option `name`, such as optim.lr, in the nested `values`."""
    *groups, key = path = name.split(".")
    hint = _type_at(kind, values, path)
    for group in groups:
        if not isinstance(values.get(group), dict):
            values[group] = {}
        values = values[group]
    value = _value(hint, _given(name, text))
    if value is None and is_dataclass(hint) and key not in values:  # a variant to leave out that does not exist
        raise unknown_key(path, values)
    values[key] = _merged(hint, values.get(key), value)


def _type_at(kind: type, values: Any, path: Sequence[str]) -> Any:
    """The type of a setting. An option cannot reach into a variant that is not in `values`: its name may be a typo."""
    hint: Any = kind
    for depth, key in enumerate(path):
        group = group_type(hint)
        if group is None and typing.get_origin(hint) is dict:
            return Any  # an argument of timm.create_model
        if is_dataclass(group):
            known = [field.name for field in fields(group)]
        else:
            known = [] if group is None else [*(values or ())]
        adds_variant = group is not None and not is_dataclass(group) and depth == len(path) - 1
        if key not in known and not adds_variant:
            raise unknown_key(path[: depth + 1], known)
        hint, values = member_type(group, key), values.get(key) if isinstance(values, dict) else None
    return hint


def _value(hint: Any, text: str) -> Any:
    """An option's text as a value for a setting of type `hint`: YAML, but text stays text, such as `--name 5`."""
    parts = set(_parts(hint))
    value = read_value(text)
    is_text = {str, Path} & parts or any(isinstance(part, str) for part in parts)
    if not is_text or isinstance(value, list | dict) or (value is None and type(None) in parts):
        return value
    return text


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def _merged(hint: Any, old: Any, new: Any) -> Any:
    """`new` over `old`: groups of settings are merged, other values replaced."""
    group = group_type(hint)
    if group is None or not isinstance(new, dict):
        is_number = isinstance(new, bool) and {int, float} & {*_parts(hint)} and bool not in _parts(hint)
        return str(new).lower() if is_number else new  # for pydantic to refuse: it takes true for the number 1
    merged = dict(old) if isinstance(old, dict) else {}
    return merged | {key: _merged(member_type(group, key), merged.get(key), value) for key, value in new.items()}


def _without_null(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the variants that are null."""
    hints = typing.get_type_hints(kind)
    variants = [name for name in values if typing.get_origin(group_type(hints.get(name))) is dict]
    return values | {
        name: {key: value for key, value in values[name].items() if value is not None}
        for name in variants
        if isinstance(values[name], dict)
    }


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
