"""`--help` for a dataclass of settings: its groups, types, defaults and docstrings."""

from __future__ import annotations

import argparse
import json
from dataclasses import is_dataclass
from typing import Any

from fixres.config.validation import adapter

_METAVARS = {"integer": "INT", "number": "NUMBER", "boolean": "{true,false}", "array": "[...]", "object": "{...}"}


def print_help(kind: type, description: str) -> None:
    """Prints the settings of the dataclass `kind` as options."""
    parser = argparse.ArgumentParser(
        description=description, usage="%(prog)s [--help] [--config FILE] [--SETTING VALUE ...]", add_help=False
    )
    parser.add_argument("--help", action="store_true", help="show this message")
    parser.add_argument("--config", help="a YAML file with any of the settings below; it can be given several times")
    schema = adapter(kind).json_schema()
    for title, settings in _groups(_described(kind, schema), schema, "").items():
        group = parser.add_argument_group(title)
        for name, leaf in settings:
            default = f" (default: {json.dumps(leaf['default'])})" if "default" in leaf else ""
            text = f"{leaf.get('description', '')}{default}".replace("%", "%%")
            group.add_argument(f"--{name}", metavar=_metavar(leaf), help=text)
    parser.print_help()


def _described(kind: type, schema: dict) -> dict:
    """The schema of `kind` in `schema`. pydantic finds a field's docstring only in the class that defines the field."""
    root = next(option for option in schema["anyOf"] if option.get("type") != "null")
    described = _resolved(root, schema)
    for base in filter(is_dataclass, kind.__mro__[1:]):
        for name, setting in _described(base, adapter(base).json_schema())["properties"].items():
            described["properties"][name] = setting | described["properties"][name]
    return described


def _groups(group: dict, schema: dict, prefix: str) -> dict[str, list[tuple[str, dict]]]:
    """Descriptions of all groups of settings, each with the names and schemas of its settings."""
    leaves, found = [], {}
    for key, value in group["properties"].items():
        name, inner = f"{prefix}{key}", _resolved(value, schema)
        if isinstance(inner.get("additionalProperties"), dict) and "$ref" in inner["additionalProperties"]:
            name, inner = f"{name}.NAME", _resolved(inner["additionalProperties"], schema)
        if "properties" in inner:
            found |= _groups(inner, schema, f"{name}.")
        else:
            leaves.append((name, value))
    return {group.get("description", prefix).rstrip("."): leaves} | found


def _resolved(value: dict, schema: dict) -> dict:
    """The group that a setting's schema refers to, perhaps as one that can be null; the schema itself for others."""
    for option in (value, *value.get("anyOf", ())):
        if "$ref" in option:
            return schema["$defs"][option["$ref"].rpartition("/")[2]]
    return value


def _metavar(leaf: dict[str, Any]) -> str:
    names = [_option_name(option) for option in leaf.get("anyOf", [leaf])]
    return "|".join(dict.fromkeys(names))


def _option_name(option: dict[str, Any]) -> str:
    if "enum" in option:
        return "{" + ",".join(option["enum"]) + "}"
    return option.get("const") or _METAVARS.get(
        option.get("type", ""), "null" if option.get("type") == "null" else "TEXT"
    )
