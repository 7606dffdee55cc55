"""Reads YAML from files and options: safe, of bounded size, without YAML's surprises."""

from __future__ import annotations

import re
from typing import Any

import yaml

_MAX_VALUES = 10_000  # a recipe has about a hundred; YAML aliases can expand to any number


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


def read_yaml(text: str | bytes) -> Any:
    """What the text holds.

    Raises:
        yaml.YAMLError: it is not YAML.
        ValueError: it has too many values.
        RecursionError: it is nested too deeply.
    """
    content = _Loader(text).get_single_data()
    waiting, num_values = [content], 0
    while waiting:  # counts what aliases refer to each time
        value, num_values = waiting.pop(), num_values + 1
        if num_values > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES} values")
        waiting += [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return content


def read_value(text: str) -> Any:
    """What the text holds as YAML, or the text itself."""
    try:
        return read_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
