"""What a recipe may not say, found before its parser acts on it: classes to import, files in place of settings, nan.

A recipe may come from a stranger, and the parser imports whatever a group of settings names as its class, directly or
in a file that the recipe names. Here a group is settings or nothing.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from pipelines.spec import InputError

_CLASS_KEYS = {"class_path", "init_args", "dict_kwargs"}
_MAY_BE_INFINITE = ("min_zoom", "minutes", "cache_memory")  # all levels, never by time, no limit


def check_call(kind: type, arguments: Sequence[str]) -> None:
    """Raises InputError for `--config` files and options that are no settings of the dataclass `kind`."""
    names = groups(kind)
    for k, argument in enumerate(arguments):
        option, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not (equals or k + 1 < len(arguments)):
            continue
        value = value if equals else arguments[k + 1]
        if option == "config":
            _check_content(names, _read(Path(value)), value)
        elif option in names:
            _check_content(names, {option: _as_yaml(value)}, "the command line")
        elif _CLASS_KEYS & set(option.split(".")):
            raise InputError(f"--{option} is no setting; a recipe names no classes")


def check_numbers(values: Any, name: str = "") -> None:
    """Raises InputError for nan, which passes most comparisons, and for infinity where it says nothing.

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


def groups(kind: type, prefix: str = "") -> dict[str, str]:
    """Dotted names of all groups of settings in the dataclass `kind`, each with the name of its first setting."""
    found = {}
    for name, hint in typing.get_type_hints(kind).items():
        for part in _parts(hint):
            if is_dataclass(part):
                found[f"{prefix}{name}"] = fields(part)[0].name
                found |= groups(typing.cast(type, part), f"{prefix}{name}.")
    return found


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in typing.get_args(hint):
        yield from _parts(part)


def _read(path: Path) -> Any:
    if not path.is_file():  # a pipe can be read only once
        raise InputError(f"--config {path}: {'a folder' if path.is_dir() else 'no such file'}; give a YAML file")
    try:
        return yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Not left to the parser: what it reads otherwise than we do was not looked at.
        raise InputError(f"{path}: no readable YAML ({' '.join(str(error).split())})") from error


def _as_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _check_content(names: dict[str, str], content: Any, where: str) -> None:
    if not isinstance(content, dict):
        raise InputError(f"{where}: not a recipe; it must hold settings, such as 'seed: 1'")
    if key := _class_key(content):
        raise InputError(f"{where}: {key} is no setting; a recipe names no classes")
    if content.get("config") is not None:
        raise InputError(f"{where}: config is no setting; name several files on the command line, each with --config")
    _check_groups(names, content, where)


def _check_groups(names: dict[str, str], content: dict, where: str, prefix: str = "") -> None:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name not in names or value is None:
            continue
        if not isinstance(value, dict):
            raise InputError(
                f"{where}: {name}={value!r} is no value, for {name} is a group of settings such as {name}.{names[name]}"
            )
        _check_groups(names, value, where, f"{name}.")


def _class_key(content: Any) -> str | None:
    waiting, seen = [content], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen or not isinstance(value, dict | list):
            continue
        seen.add(id(value))  # YAML can make a value its own part
        if isinstance(value, dict):
            for key in value:
                if found := _CLASS_KEYS & set(str(key).split(".")):
                    return found.pop()
        waiting.extend(value.values() if isinstance(value, dict) else value)
    return None
