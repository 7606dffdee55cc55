"""The options of a command: one for each setting of its dataclass, described by type hint, docstring and metadata.

A setting's option is its dotted name with hyphens: `optim.weight_decay` is `--optim.weight-decay`. Metadata of a
dataclass field may change that: `{"option": "data"}` gives it another name, which is then its only one, and
`{"positional": True}` lets its value be given without a name.
"""

from __future__ import annotations

import difflib
import functools
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, Literal, Union

from fixres.config.legacy import OPTIONS, renamed_key
from fixres.config.validation import as_plain, settings
from fixres.pipelines.spec import InputError

VARIANT = "NAME"  # stands for any key of a mapping of dataclasses


@dataclass(frozen=True)
class Option:
    """One setting of a command.

    Attributes:
        path: keys of the setting in nested mappings; NAME stands for a variant's name.
        name: what follows `--`, with underscores.
        hint: type of the value.
        schema: its JSON schema with "description", "default" and "group".
        positional: whether the value can be given without a name.
        required: whether it has no default.
    """

    path: tuple[str, ...]
    name: str
    hint: Any
    schema: dict[str, Any]
    positional: bool = False
    required: bool = False

    @property
    def kinds(self) -> tuple[Any, ...]:
        """The types that the value may have, without None."""
        return tuple(kind for kind in _members(self.hint) if kind is not type(None))

    @property
    def is_switch(self) -> bool:
        """Whether the option needs no value."""
        return self.kinds == (bool,)

    @property
    def is_list(self) -> bool:
        """Whether the value is, or may be, a list."""
        return any(typing.get_origin(kind) in (list, tuple) for kind in self.kinds)

    @property
    def flag(self) -> str:
        """The option as it is typed, with its dashes."""
        return flag(self.name)


def first_line(option: Option) -> str:
    """The beginning of the option's description, for messages."""
    return option.schema.get("description", "").split("\n")[0].split(";")[0].rstrip(".")


def flag(name: str) -> str:
    """An option's name as it is typed."""
    return f"--{name.replace('_', '-')}"


@functools.cache
def options(kind: type) -> dict[str, Option]:
    """All options of the dataclass `kind` by name."""
    found = {}
    for dotted, schema in settings(kind).items():
        path = tuple(dotted.split("."))
        hint, field = _field(kind, path)
        name = field.metadata.get("option", dotted)
        required = field.default is MISSING and field.default_factory is MISSING
        if field.default_factory is not MISSING:  # pydantic's schema has only the other defaults
            schema = schema | {"default": as_plain(field.default_factory())}
        found[name] = Option(path, name, hint, schema, field.metadata.get("positional", False), required)
    return found


def _field(kind: type, path: Sequence[str]) -> tuple[Any, Any]:
    """Type hint and dataclass field of the setting at `path`."""
    first, *rest = path
    hint = typing.get_type_hints(kind)[first]
    if not rest:
        return hint, next(field for field in fields(kind) if field.name == first)
    for member in _members(hint):
        if is_dataclass(member):
            return _field(member, rest)
        if typing.get_origin(member) is dict:
            return _field(typing.get_args(member)[1], rest[1:])
    raise AssertionError(path)


def _members(hint: Any) -> tuple[Any, ...]:
    """The types of a union, or the type itself."""
    return typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,)


def choices(option: Option) -> tuple[str, ...]:
    """The values that are allowed, if the setting is one of several texts."""
    return tuple(
        value for kind in option.kinds if typing.get_origin(kind) is Literal for value in typing.get_args(kind)
    )


def find(kind: type, name: str, others: Sequence[str] = ()) -> Option:
    """The option `name`, a group of settings, or an entry of a mapping such as `model.kwargs.channels`.

    Args:
        kind: the dataclass of the command.
        name: what follows `--`.
        others: options of the command that are not settings, for the hint.

    Raises:
        InputError: there is none; the message names the nearest.
    """
    known, key = options(kind), name.replace("-", "_")
    if key in known and VARIANT not in known[key].path:
        return known[key]
    for option in known.values():
        path = _matched(option.path, name)
        if path is None:
            continue
        if len(path) == len(option.path) and ".".join(option.path) == option.name:
            return Option(path, key, option.hint, option.schema)
        if len(path) < len(option.path) or dict in map(typing.get_origin, option.kinds):
            return Option(path, key, Any, {"default": None})
    near = _nearest(kind, key, others)
    hint = f", did you mean {flag(near)}?" if near else ";"
    raise InputError(f"unknown option {flag(key)}{hint} see --help")


def _matched(pattern: tuple[str, ...], name: str) -> tuple[str, ...] | None:
    """The path that `name` means if its parts are those of `pattern`; names of variants and of arguments stay."""
    parts = name.split(".")
    path = tuple(
        part if k >= len(pattern) or pattern[k] == VARIANT else part.replace("-", "_") for k, part in enumerate(parts)
    )
    same = all(one in (VARIANT, other) for one, other in zip(pattern, path, strict=False))
    return path if same else None


def _exists(kind: type, key: str) -> bool:
    """Whether `find` finds it, or would, if it had not been given another name."""
    paths = [option.path for option in options(kind).values()]
    return any(len(path) == key.count(".") + 1 and _matched(path, key) for path in paths)


def _nearest(kind: type, key: str, others: Sequence[str]) -> str | None:
    """The name that the user probably meant: a former one, the last part of a dotted one, or a similar one."""
    known = options(kind)
    names = {".".join(option.path): name for name, option in known.items()} | {name: name for name in known}
    names |= {name: name for name in others}
    for former in (renamed_key(key), OPTIONS.get(key, key)):
        if former != key and _exists(kind, former):
            return names.get(former, former)
    leaves = {name.rpartition(".")[2]: name for name in reversed(names)}
    for pool in (names, leaves):
        if key in pool:
            return names[pool[key]]
        if near := difflib.get_close_matches(key, pool, 1, 0.7):
            return names[pool[near[0]]]
    return None
