"""Checks plain values against a dataclass with pydantic; every mistake becomes one line that names the setting.

pydantic builds the dataclasses from their type hints and imports nothing that a recipe names, so untrusted recipes are
safe.
"""

from __future__ import annotations

import difflib
import functools
import math
import re
import reprlib
import typing
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from typing import Any, TypeVar

from fixres.config.legacy import RENAMED
from fixres.pipelines.spec import InputError

T = TypeVar("T")
_MAY_BE_INFINITE = ("min_zoom", "minutes", "cache_memory")  # all levels, never by time, no limit


def validated(kind: type[T], values: dict[str, Any]) -> T:
    """An instance of the dataclass `kind` from nested mappings, lists and scalars.

    Raises:
        InputError: an unknown key, a value of the wrong type, nan, or a value that its dataclass refuses.
    """
    from pydantic import ValidationError

    try:
        made = _adapter(kind).validate_python(values)
    except ValidationError as error:
        raise InputError(_message(kind, values, error.errors(include_url=False))) from None
    _check_numbers(values, as_plain(made))
    return made


@functools.cache
def _adapter(kind: type) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # A plain dataclass takes its configuration from the type around it, here an optional.
    return TypeAdapter(typing.Optional[kind], config=ConfigDict(extra="forbid", use_attribute_docstrings=True))  # noqa: UP045


@functools.cache
def settings(kind: type) -> dict[str, dict[str, Any]]:
    """The JSON schema of every setting by its dotted name, with its group's description; NAME stands for a variant."""
    schema = _adapter(kind).json_schema()
    (root,) = (option for option in schema["anyOf"] if option.get("type") != "null")
    found = dict(_settings(_group(root, schema["$defs"])[0], schema["$defs"], ""))
    for base in filter(is_dataclass, kind.__mro__[1:]):  # pydantic finds a docstring only in the class of its field
        found |= {name: setting | found[name] for name, setting in settings(base).items()}
    return found


def _settings(group: dict[str, Any], groups: dict[str, Any], prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    nested = []
    for key, value in group["properties"].items():
        inner, suffix = _group(value, groups)
        if "properties" in inner:
            nested.append((inner, f"{prefix}{key}.{suffix}"))
        else:
            yield f"{prefix}{key}", value | {"group": group.get("description", "")}
    for inner, name in nested:
        yield from _settings(inner, groups, name)


def _group(value: dict[str, Any], groups: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The group that a schema refers to, perhaps as an optional or as the values of a mapping; or the schema itself."""
    named = value.get("additionalProperties")
    for option in (value, named if isinstance(named, dict) else {}, *value.get("anyOf", ())):
        if "$ref" in option:
            return groups[option["$ref"].rpartition("/")[2]], "NAME." if option is named else ""
    return value, ""


def set_value(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets a value in nested mappings; makes those that do not exist."""
    for key in path[:-1]:
        if not isinstance(values.get(key), dict):
            values[key] = {}
        values = values[key]
    values[path[-1]] = value


def _unknown_key(kind: type, path: Sequence[str]) -> str:
    """The message for a key that does not exist, with the nearest of its group's keys."""
    *groups, key = path
    keys = _keys(kind, groups)
    near = [RENAMED[key]] if RENAMED.get(key) in keys else difflib.get_close_matches(key, keys, 1)
    hint = f", did you mean {'.'.join([*groups, near[0]])}?" if near else ";"
    return f"unknown key {'.'.join(path)}{hint} see --help"


def _keys(kind: type, groups: Sequence[str]) -> list[str]:
    """The keys of a group of settings."""
    prefix = "".join(f"{group}." for group in groups)
    prefix = re.sub(r"^variants\.[^.]+\.", "variants.NAME.", prefix)
    return [name[len(prefix) :].split(".")[0] for name in settings(kind) if name.startswith(prefix)]


def _message(kind: type, values: dict[str, Any], errors: list[Any]) -> str:
    """The first error in words: setting, value, and what it must be."""
    first = errors[0]
    path, value = _place(first["loc"], values)
    name = ".".join(path)
    if first["type"] == "unexpected_keyword_argument":
        return _unknown_key(kind, path)
    if first["type"] == "missing":
        more = isinstance(first["loc"][-1], int)
        return f"{name}={value} needs more values; see --help" if more else f"{name}.{first['loc'][-1]} is missing"
    if isinstance(refusal := first.get("ctx", {}).get("error"), InputError):
        return _with_group(path, str(refusal))
    shown = value if isinstance(value, str) else reprlib.repr(value)
    if first["type"] == "dataclass_type":
        example = f", use for example {name}.{keys[0]}" if (keys := _keys(kind, path)) else "; see --help"
        return f"{name}={shown}: {name} is a group of settings{example}"
    reasons = [re.sub(", (unable|got) .*", "", one["msg"]) for one in errors if _place(one["loc"], values)[0] == path]
    wanted = " or ".join(reason.removeprefix("Input should be ") for reason in dict.fromkeys(reasons))
    wanted = wanted.replace("a valid integer", "a whole number").replace("a valid list", "a list such as 96,112")
    wanted = wanted.replace("a valid tuple", "a list such as [0,128]")
    wanted = wanted.replace("a valid dictionary", "pairs such as 128:12,160:4 or {key: value}")
    wanted = wanted.replace("a valid ", "a ")
    return f"{name}={shown} must be {wanted}; see --help"


def _place(location: Sequence[str | int], values: Any) -> tuple[list[str], Any]:
    """Path and value of an error. pydantic's location also names the parts of a union, which are left out."""
    path: list[str] = []
    for part in location:
        if isinstance(values, dict) and part in values:
            path.append(str(part))
            values = values[part]
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            path[-1] += f"[{part}]"
            values = values[part]
    return path, values


def _with_group(path: list[str], message: str) -> str:
    """A dataclass names its own settings; this adds the groups around it."""
    if path and message.startswith(f"{path[-1]}."):
        return ".".join([*path[:-1], message])
    return f"{'.'.join(path)}: {message}" if path else message


def _check_numbers(values: Any, made: Any, name: str = "") -> None:
    """Refuses nan, which passes most comparisons; infinity where it has no meaning; and true, which would become 1."""
    if isinstance(values, dict):
        for key, value in values.items():
            _check_numbers(value, made[key], f"{name}.{key}" if name else str(key))
    elif isinstance(values, list):
        for value, item in zip(values, made, strict=True):
            _check_numbers(value, item, name)
    elif isinstance(values, bool) and values is not made:
        raise InputError(f"{name}={str(values).lower()} must be a number")
    elif isinstance(made, float) and not math.isfinite(made):
        if math.isnan(made) or name.rpartition(".")[2] not in _MAY_BE_INFINITE:
            raise InputError(f"{name}={made} must be a finite number")


def as_plain(value: Any) -> Any:
    """Dataclasses, tuples and paths as what YAML and JSON hold."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: as_plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, dict):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return str(value) if hasattr(value, "__fspath__") else value
