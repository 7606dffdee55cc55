"""Reads YAML from files and options: safe, of bounded size, without YAML's surprises."""

from __future__ import annotations

import re
from typing import Any

import yaml

_MAX_VALUES = 10_000  # a recipe has about a hundred; YAML aliases can expand to any number
_MAX_CHARACTERS = 500_000
_MAX_TEXT = 4096
_ODD = re.compile("[\0\ud800-\udbff]")  # surrogates that do not stand for a byte
_TOO_MANY = f"more than {_MAX_VALUES} values"


class _Loader(yaml.SafeLoader):
    """SafeLoader with limits on nodes and merge keys; dates are text, and 1e-3 is a number."""

    def __init__(self, text: str | bytes) -> None:
        super().__init__(text)
        self._num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._num_nodes += 1
        if self._num_nodes > _MAX_VALUES:
            raise ValueError(_TOO_MANY)
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MAX_VALUES:  # merge keys multiply
            raise ValueError(_TOO_MANY)


_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+$"), [*"-+.0123456789"]
)


def read_yaml(text: str | bytes) -> Any:
    """What the text holds: mappings, lists, text, numbers of up to 64 bits, true, false and null.

    Raises:
        yaml.YAMLError: it is not YAML.
        ValueError: it has too many values, or other ones.
        RecursionError: it is nested too deeply.
    """
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"more than {_MAX_CHARACTERS} characters")
    try:
        content = _Loader(text).get_single_data()
    except (LookupError, AttributeError, TypeError, OverflowError) as error:  # !!bool x, !!int ""
        raise ValueError("a value that does not fit its tag") from error
    waiting, num_values = [content], 0
    while waiting:  # counts what aliases refer to each time
        value, num_values = waiting.pop(), num_values + 1
        if num_values > _MAX_VALUES:
            raise ValueError(_TOO_MANY)
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        else:
            _check_scalar(value)
    return content


def _check_scalar(value: Any) -> None:
    if not isinstance(value, str | int | float | bool | None):  # such as !!set, !!binary and !!pairs
        raise ValueError(f"a value of type {type(value).__name__}; use text and numbers")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a whole number of more than 64 bits")
    if isinstance(value, str) and (len(value) > _MAX_TEXT or _ODD.search(value)):
        raise ValueError(f"text of more than {_MAX_TEXT} characters, or with some that no file name can have")


def read_value(text: str) -> Any:
    """What the text holds as YAML, or the text itself."""
    try:
        return read_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
