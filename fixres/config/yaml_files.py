"""Reads untrusted YAML: plain values only, by the rules of YAML 1.2, with a limit on what aliases expand to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from pipelines.spec import InputError

_MAX_VALUES = 10_000  # a recipe has about a hundred


class _Loader(yaml.SafeLoader):
    """SafeLoader that takes `no` and `2024-01-01` for text and 1e-3 for a number."""

    yaml_implicit_resolvers: ClassVar = {}

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MAX_VALUES:  # merge keys multiply
            raise yaml.YAMLError(f"more than {_MAX_VALUES} values")


for _tag, _pattern, _first in (
    ("null", r"~|null|", ["~", "n", ""]),
    ("bool", r"true|false", list("tf")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        InputError: not a regular file, not YAML, not a mapping, or too many values.
    """
    if not path.is_file():
        raise InputError(f"--config {path}: {'is a folder' if path.is_dir() else 'no such file'}; give a YAML file")
    try:
        content = read_yaml(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a recipe; it must hold settings, such as 'seed: 1'")
    return content


def read_value(text: str) -> Any:
    """An option's value: YAML, or the text itself if it is not YAML."""
    try:
        return read_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def read_yaml(text: str | bytes) -> Any:
    """Plain values from YAML. Raises yaml.YAMLError, ValueError or RecursionError."""
    content = _Loader(text).get_single_data()
    waiting, num_values = [content], 0
    while waiting:  # aliases count each time: nested ones expand to exponentially many values, or for ever
        value = waiting.pop()
        num_values += 1
        if num_values > _MAX_VALUES:
            raise ValueError(f"more than {_MAX_VALUES} values")
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
    return content
