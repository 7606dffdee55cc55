"""The text of `--help`: every option of a command with its kind of value, its meaning and its default."""

from __future__ import annotations

import argparse
import json
import typing
from pathlib import Path
from typing import Any

from fixres.config.options import Option, choices, options

_METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH", dict: "{KEY: VALUE}", bool: "true|false", Any: "VALUE"}


def print_help(kind: type, description: str, recipes: list[str] | None) -> None:
    """Prints the options of the dataclass `kind`; `recipes` are the names that `--config` accepts, None without it."""
    known = options(kind)
    places = " ".join(_place(option) for option in known.values() if option.positional)
    parser = argparse.ArgumentParser(
        description=description.strip(),
        usage=f"%(prog)s {places} [options]".replace("  ", " "),
        add_help=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for option in known.values():
        if option.positional:
            parser.add_argument(option.name, metavar=_place(option), help=_text(option))
    parser.add_argument("--help", action="store_true", help="Show this message.")
    if recipes is not None:
        text = f"A recipe, or a YAML file with settings; may be given several times. Recipes: {', '.join(recipes)}."
        parser.add_argument("--config", metavar="RECIPE", help=text)
    groups: dict[str, Any] = {"": parser}
    for option in known.values():
        title = option.schema["group"].rstrip(".") if len(option.path) > 1 else ""
        groups[title] = groups.get(title) or parser.add_argument_group(title)
        if not option.positional:
            action = {"action": "store_true"} if option.is_switch else {"metavar": _metavar(option)}
            groups[title].add_argument(option.flag, help=_text(option), **action)
    parser.print_help()


def _place(option: Option) -> str:
    name = option.name.upper().replace("_", "-")
    if option.is_list:
        return f"{name.removesuffix('S')}..." if option.required else f"[{name.removesuffix('S')}...]"
    return name if option.required else f"[{name}]"


def _metavar(option: Option) -> str:
    if several := choices(option):
        others = [_of(kind) for kind in option.kinds if typing.get_origin(kind) is not typing.Literal]
        return "|".join([*map(str, several), *others])
    return "|".join(_of(kind) for kind in option.kinds)


def _of(kind: Any) -> str:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is dict and inner[0] is int:
        return f"{_of(inner[0])}:{_of(inner[1])},..."
    if origin is list:
        return f"{_of(inner[0])},..." if typing.get_origin(inner[0]) is None else "[[...], ...]"
    if origin is tuple:
        return ",".join(_of(one) for one in inner if one is not ...)
    return _METAVARS.get(origin or kind, "VALUE")


def _text(option: Option) -> str:
    described = " ".join(option.schema.get("description", "").split())
    default = option.schema.get("default")
    # null is explained by the description; a switch is off unless it is given.
    if option.required or default in (None, False, [], {}, ""):
        return described.replace("%", "%%")
    return f"{described} (default: {_shown(default)})".replace("%", "%%")


def _shown(default: Any) -> str:
    """A default as it is typed: 96,112 for a list, 128:12,160:4 for a mapping."""
    if isinstance(default, str):
        return default
    text = json.dumps(default, separators=(",", ":")).replace('"', "")
    return text if text.startswith("[[") else text.strip("[]{}")
