"""How recipe files and command-line options become a dataclass such as `Recipe`, and a recipe a file again."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fixres.config.help import print_help
from fixres.config.legacy import renamed
from fixres.config.options import first_line, options
from fixres.config.recipe import Recipe
from fixres.config.validation import as_plain, set_value, validated
from fixres.config.words import CONFIG, read_words
from fixres.config.yaml_text import read_yaml
from fixres.pipelines.runtime.atomic_files import open_own
from fixres.pipelines.spec import InputError

RECIPES = Path(__file__).parents[1] / "recipes"
T = TypeVar("T")
_OTHER_COMMANDS = ("finetune", "detect", "segment")  # with recipes in folders of their own
_WHOLE = ("kwargs", "model_kwargs")  # mappings that a later one replaces; others are merged


def parse_recipe(arguments: Sequence[str], default: str = "demo", description: str = "") -> Recipe:
    """A recipe from command-line arguments: `--config FILE_OR_NAME` and overrides such as `--optim.lr 0.5`.

    Raises:
        InputError: an unknown key, a value of the wrong kind, or one that its dataclass refuses.
    """
    return recipe_of(parse(RecipeOptions, arguments, description, RECIPES, default))


@dataclass(frozen=True)
class RecipeOptions(Recipe):
    """A recipe, and which of its variants are meant."""

    variant: list[str] = field(default_factory=list)
    """Only these variants of the recipe; all by default."""


def recipe_of(options: RecipeOptions) -> Recipe:
    """The recipe with the variants that the options choose.

    Raises:
        InputError: it has no such variant, or none at all.
    """
    recipe = Recipe(**{one.name: getattr(options, one.name) for one in fields(Recipe)})
    if not recipe.variants:
        raise InputError("variants: the recipe names none, or all are null; nothing to train")
    for name in options.variant:
        if name not in recipe.variants:
            raise InputError(
                f"--variant {name}: the recipe {recipe.name} does not have this variant; it has "
                f"{', '.join(recipe.variants)}"
            )
    chosen = {name: one for name, one in recipe.variants.items() if name in options.variant or not options.variant}
    return replace(recipe, variants=chosen)


def parse(
    kind: type[T], arguments: Sequence[str], description: str = "", recipes: Path | None = None, default: str = ""
) -> T:
    """An instance of the dataclass `kind` from options, positional arguments and `--config` files; later ones win.

    Args:
        kind: the dataclass; `fixres.config.options` says how its fields become options.
        arguments: words of the command line.
        description: the beginning of `--help`.
        recipes: folder of the files that `--config` accepts by name; without it there is no `--config`.
        default: the recipe without `--config`.

    Raises:
        InputError: as `parse_recipe`.
    """
    if {"-h", "--help"} & set(arguments):
        print_help(kind, description, None if recipes is None else list(_recipes_in(recipes)))
        raise SystemExit(0)
    given = list(read_words(kind, arguments, files=recipes is not None))
    _check_required(kind, [path for path, _ in given])
    if recipes is not None and default and not any(path == CONFIG for path, _ in given):
        given.insert(0, (CONFIG, default))
    return combined(kind, given, recipes)


def combined(kind: type[T], given: Sequence[tuple[tuple[str, ...], Any]], recipes: Path | None = None) -> T:
    """An instance of the dataclass `kind` from the paths and values of settings; later ones win.

    Args:
        kind: the dataclass.
        given: the path of a setting or a group, and its plain value; the path `CONFIG` and the name of a recipe.
        recipes: folder of the recipes.

    Raises:
        InputError: as `parse_recipe`.
    """
    values = {field.name: as_plain(field.default_factory()) for field in fields(kind)  # type: ignore[arg-type]
              if field.default_factory is not MISSING}  # fmt: skip
    for path, value in given:
        if path == CONFIG and recipes is not None:
            values = _merged(values, renamed(_read_file(recipe_file(value, recipes))))
            continue
        _check_variant(values, path, value)
        group: dict[str, Any] = {}
        set_value(group, path, value)
        if isinstance(value, dict) and not set(path) & set(_WHOLE):
            values = _merged(values, group)
        else:
            set_value(values, path, value)
    if isinstance(variants := values.get("variants"), dict):
        values["variants"] = {name: variant for name, variant in variants.items() if variant is not None}
    return validated(kind, values)


def _check_required(kind: type, given: Sequence[tuple[str, ...]]) -> None:
    for option in options(kind).values():
        if option.required and len(option.path) == 1 and option.path not in given:
            name = option.name.upper() if option.positional else option.flag
            raise InputError(f"{name} is missing: {first_line(option)}; see --help")


def _recipes_in(folder: Path) -> dict[str, Path]:
    """The recipes in and below `folder` by name."""
    # The recipes of other commands have other settings than those for training, so no command lists another's.
    others = {RECIPES / name for name in _OTHER_COMMANDS}
    files = sorted(file for file in folder.rglob("*.yaml") if file.parent == folder or file.parent not in others)
    return {str(file.relative_to(folder).with_suffix("")): file for file in files}


def recipe_file(name: str, folder: Path) -> Path:
    """The file `name`, or the recipe of that name; the recipe's folder may be omitted."""
    if Path(name).is_file():
        return Path(name)
    known = _recipes_in(folder)
    bare = name.removesuffix(".yaml")
    found = [known[bare]] if bare in known else [file for file in known.values() if file.stem == bare]
    if len(found) == 1:
        return found[0]
    what = "no such file, and no recipe of that name"
    if found:
        what = "the name of several recipes"
    elif any(file.stem == bare for file in RECIPES.rglob("*.yaml")):
        commands = ", ".join(f"fixres {name} has those in {name}/" for name in _OTHER_COMMANDS)
        what = f"a recipe of another command ({commands}, fixres train the others)"
    elif Path(name).is_dir():
        what = "a folder, not a recipe file"
    near = difflib.get_close_matches(bare, known, 1)
    hint = f"did you mean {near[0]}? There are {', '.join(known)}" if near else f"there are {', '.join(known)}"
    raise InputError(f"--config {name}: {what}; {hint}")


def _check_variant(values: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """An option cannot reach into a variant that the recipe does not have: its name may be a typo."""
    known = values.get("variants")
    if path[0] == "variants" and isinstance(known, dict) and (len(path) > 2 or value is None) and path[1] not in known:
        near = difflib.get_close_matches(path[1], known, 1)
        hint = f"did you mean {near[0]}? It" if near else "it"
        raise InputError(f"variants.{path[1]}: the recipe does not have this variant; {hint} has {', '.join(known)}")


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = old | new
    for key in old.keys() & new.keys() - set(_WHOLE):
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            merged[key] = _merged(old[key], new[key])
    return merged


def _read_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"--config {path}: {'is a folder' if path.is_dir() else 'no such file'}; give a YAML file")
    try:
        content = read_yaml(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a recipe; it must hold settings, such as 'seed: 1'")
    return content


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Writes the resolved recipe as YAML that `--config` reads back."""
    with open(path, "w", opener=open_own) as file:
        yaml.safe_dump(as_plain(recipe), file, sort_keys=False)


def recipe_text(recipe: Any) -> str:
    """A recipe that `as_plain` made plain, as YAML for people: a line for each group of settings."""
    return yaml.safe_dump(recipe, sort_keys=False, default_flow_style=None, width=110)
