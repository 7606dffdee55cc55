"""Checks that values have the types of their annotations, so that a wrong one is named before it is used."""

from __future__ import annotations

import functools
import numbers
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union

from fixres.pipelines.errors import InputError

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "True or False", bytes: "bytes",
          Mapping: "a mapping", dict: "a mapping", list: "a list", types.NoneType: "None"}  # fmt: skip


def check_fields(config: Any) -> None:
    """Raises InputError unless all fields of a dataclass have the types of their annotations."""
    hints = _field_hints(type(config))
    check_types({name: getattr(config, name) for name in hints}, hints)


def check_types(values: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """Raises InputError for the first value that is not of its type.

    Args:
        values: by name.
        hints: types by name; values without one are not checked. Whole numbers are numbers, and True is not one. What
            stands in the brackets of a list, a tuple or a dict is checked, other brackets are not.
    """
    for name, value in values.items():
        if name in hints and not _is_of(value, hints[name]):
            raise InputError(f"{name}={reprlib.repr(value)} must be {_in_words(hints[name])}")


@functools.cache
def _field_hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_of(value: Any, hint: Any) -> bool:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_is_of(value, one) for one in inside)
    if origin is Literal:
        return isinstance(value, str) and value in inside
    if origin is tuple:  # lists, because YAML and JSON have no tuples
        return isinstance(value, tuple | list) and len(value) == len(inside) and all(map(_is_of, value, inside))
    if origin is dict:
        return isinstance(value, dict) and all(map(_all_are, (list(value), list(value.values())), inside))
    if origin in (Sequence, list):  # text has the methods of a list of texts
        return isinstance(value, Sequence) and not isinstance(value, str | bytes) and _all_are(value, inside[0])
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real  # NumPy's numbers, too
        return isinstance(value, kind) and not isinstance(value, bool)
    return hint is Any or isinstance(value, origin or hint)


def _all_are(values: Sequence[Any], hint: Any) -> bool:
    return all(_is_of(value, hint) for value in values)


def _in_words(hint: Any) -> str:
    origin, inside = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return _either([repr(one) for one in inside])
    if origin in (Union, types.UnionType):
        return _either([_in_words(one) for one in inside])
    if origin is tuple:
        return f"{len(inside)} values, each {_in_words(inside[0])}"
    if origin in (Sequence, list):
        word = _WORDS.get(inside[0])  # none for a union of types, which stands before the list
        if typing.get_origin(inside[0]) is tuple:
            return f"a list, each of its values {_in_words(inside[0])}"
        return f"a list of {word.removeprefix('a ')}s" if word else "a list of such"
    if origin is dict and inside[1] not in (Any, object):
        return f"a mapping of names to {_in_words(inside[1])}"
    kind = origin or hint
    return _WORDS.get(kind) or (kind.__name__ if "." in kind.__module__ else f"{kind.__module__}.{kind.__name__}")


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
