"""Checks plain values against a dataclass with pydantic; every mistake becomes one line that names the setting.

pydantic builds the dataclasses from their type hints. It imports nothing that a recipe names, so untrusted recipes are
safe.
"""

from __future__ import annotations

import difflib
import functools
import math
import reprlib
import typing
from collections.abc import Iterable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from fixres.config.legacy import RENAMED
from pipelines.spec import InputError

T = TypeVar("T")
_MAY_BE_INFINITE = ("min_zoom", "minutes", "cache_memory")  # all levels, never by time, no limit
_EXPECTED = {  # by the first word of pydantic's error type
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "path": "a path",
    "list": "a list such as [128, 160]",
    "tuple": "a pair such as [0.5, 1]",
    "too": "a pair such as [0.5, 1]",
    "missing": "a pair such as [0.5, 1]",
    "dict": "settings such as {name: value}",
}


def validated(kind: type[T], values: dict[str, Any]) -> T:
    """An instance of the dataclass `kind` from nested mappings, lists and scalars.

    Raises:
        InputError: an unknown key, a value of the wrong type, nan, or a value that its dataclass refuses.
    """
    from pydantic import ValidationError

    check_numbers(values)
    try:
        return adapter(kind).validate_python(values)
    except ValidationError as error:
        raise InputError(_message(kind, values, error.errors(include_url=False))) from None


@functools.cache
def adapter(kind: type) -> Any:
    """pydantic's validator of the dataclass `kind`: unknown keys are errors, docstrings of fields are descriptions."""
    from pydantic import ConfigDict, TypeAdapter

    # A plain dataclass takes its configuration from the type around it, here an optional.
    return TypeAdapter(typing.Optional[kind], config=ConfigDict(extra="forbid", use_attribute_docstrings=True))  # noqa: UP045


def check_numbers(values: Any, name: str = "") -> None:
    """Raises InputError for nan, which passes most comparisons, and for infinity where it has no meaning.

    Args:
        values: settings, as nested mappings and lists.
        name: of `values`, for the message.
    """
    if isinstance(values, dict):
        for key, value in values.items():
            check_numbers(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            check_numbers(value, name)
    elif isinstance(values, float) and not math.isfinite(values):
        if math.isnan(values) or name.rpartition(".")[2] not in _MAY_BE_INFINITE:
            raise InputError(f"{name}={values} must be a finite number")


def group_type(hint: Any) -> Any:
    """The dataclass, or the mapping from names to dataclasses, that a setting of type `hint` holds; None for others."""
    for part in (hint, *typing.get_args(hint)):
        if is_dataclass(part):
            return part
        if typing.get_origin(part) is dict and is_dataclass(typing.get_args(part)[1]):
            return part
    return None


def member_type(group: Any, key: str) -> Any:
    """The type of the setting `key` in a group from `group_type`; None if there is none."""
    return typing.get_type_hints(group).get(key) if is_dataclass(group) else typing.get_args(group)[1]


def unknown_key(path: Sequence[str], known: Iterable[str]) -> InputError:
    """The error for a key that does not exist, with the nearest of the `known` keys beside it."""
    name, key = ".".join(path), path[-1]
    known = list(known)
    if key in RENAMED and RENAMED[key] in known:
        near = [RENAMED[key]]
    else:
        near = difflib.get_close_matches(key, known, 1)
    hint = f", did you mean {'.'.join([*path[:-1], near[0]])}?" if near else ""
    return InputError(f"unknown key {name}{hint or ';'} see --help")


def _message(kind: type, values: dict[str, Any], errors: list[Any]) -> str:
    """The first error in words: setting, value, and what it must be."""
    first = errors[0]
    path, value = _place(first["loc"], values)
    name = ".".join(path)
    if first["type"] == "unexpected_keyword_argument":
        return str(unknown_key(path, _keys(kind, path[:-1])))
    if isinstance(refusal := first.get("ctx", {}).get("error"), InputError):
        return _with_group(path, str(refusal))
    if first["type"] == "dataclass_type":
        return f"{name}={_short(value)}: {name} is a group of settings, use for example {name}.{_keys(kind, path)[0]}"
    same = [error for error in errors if _place(error["loc"], values)[0] == path]
    expected = dict.fromkeys(_expected(error) for error in same)
    return f"{name}={_short(value)} must be {' or '.join(expected)}; see --help"


def _place(location: Sequence[str | int], values: Any) -> tuple[list[str], Any]:
    """Dotted path and value of an error. pydantic's location also names the parts of a union, which are left out."""
    path: list[str] = []
    for part in location:
        if isinstance(values, dict) and part in values:
            path.append(str(part))
            values = values[part]
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            path[-1] += f"[{part}]"
            values = values[part]
    return path, values


def _keys(kind: type, path: Sequence[str]) -> list[str]:
    """The settings of the group at `path` in the dataclass `kind`."""
    group: Any = kind
    for key in path:
        group = group_type(member_type(group, key))
    return [field.name for field in fields(group)]


def _expected(error: Any) -> str:
    if error["type"] == "literal_error":
        return f"one of {error['ctx']['expected']}".replace("'", "").replace(" or ", ", ")
    return _EXPECTED.get(error["type"].partition("_")[0], error["msg"])


def _with_group(path: list[str], message: str) -> str:
    """A dataclass names its own settings; this adds the groups around it."""
    if path and message.startswith(f"{path[-1]}."):
        return ".".join([*path[:-1], message])
    return f"{'.'.join(path)}: {message}" if path else message


def _short(value: Any) -> str:
    return value if isinstance(value, str) else reprlib.repr(value)
