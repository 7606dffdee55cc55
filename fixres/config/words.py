"""Words of a command line become settings: which option is meant, and the value that its type makes of the text."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from fixres.config.options import Option, find, options
from fixres.config.yaml_text import read_value
from fixres.pipelines.spec import InputError

CONFIG = ("--config",)
_BOOLEANS = {"true": True, "false": False}


def read_words(kind: type, arguments: Sequence[str], files: bool) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and value of each setting that the command line names, positional ones last.

    Args:
        kind: the dataclass of the command.
        arguments: words of the command line.
        files: whether `--config FILE` is an option; its path is `CONFIG`.

    Raises:
        InputError: an unknown option, a missing value, or a positional argument too many.
    """
    waiting, places, before = list(arguments), [], ""
    while waiting:
        word = waiting.pop(0)
        if word == "--":  # what follows is no option, such as a file that is named like one
            places += [(other, "") for other in waiting]
            break
        if not word.startswith("--"):
            places.append((word, before))
            continue
        name, equals, text = word[2:].partition("=")
        before = word.partition("=")[0]
        if files and name == "config":
            yield CONFIG, text if equals else _next(before, waiting)
            continue
        option, negated = _meant(kind, name, ("help", "config") if files else ("help",))
        if option.is_switch:
            yield option.path, _switched(option, before, waiting, text if equals else None, negated)
        else:
            text = text if equals else _next(before, waiting)
            while text.startswith("[") and text.count("[") > text.count("]") and waiting:
                text = f"{text} {waiting.pop(0)}"  # a list with spaces
            yield option.path, value_of(option, text)
    yield from _placed(kind, places)


def _meant(kind: type, name: str, others: Sequence[str]) -> tuple[Option, bool]:
    """The option, and whether it is a switch that is turned off: `--no-NAME`."""
    positive = name.replace("-", "_").removeprefix("no_")
    known = options(kind).get(positive)
    if name[:3] in ("no-", "no_") and known is not None and known.is_switch:
        return known, True
    return find(kind, name, others), False


def _next(flag: str, waiting: list[str]) -> str:
    if not waiting or waiting[0].startswith("--"):
        raise InputError(f"{flag} needs a value; see --help")
    return waiting.pop(0)


def _switched(option: Option, flag: str, waiting: list[str], text: str | None, negated: bool) -> bool:
    """A switch is on if it is named; `--NAME true` and `--NAME false` are understood, too."""
    if text is None:
        text = waiting.pop(0) if waiting and waiting[0] in _BOOLEANS else "true"
    if text not in _BOOLEANS:
        raise InputError(f"{flag}={text} must be true or false, or {option.flag} alone; see --help")
    return _BOOLEANS[text] is not negated


def _placed(kind: type, words: list[tuple[str, str]]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Positional arguments in the order of the fields; a list takes all that are left."""
    for option in (one for one in options(kind).values() if one.positional):
        if words and option.is_list:
            yield option.path, [word for word, _ in words]
            words = []
        elif words:
            (word, _), *words = words
            yield option.path, value_of(option, word)
    if words:
        word, before = words[0]
        lists = f"; a list after {before} is written with commas and without spaces, as 96,112" if before else ""
        raise InputError(f"{word}: unexpected, options begin with --{lists}; see --help")


def value_of(option: Option, text: str) -> Any:
    """The text as the option's type has it. What does not fit is left to the check of all values."""
    kinds = option.kinds
    mapping = next((kind for kind in kinds if typing.get_origin(kind) is dict), None)
    if mapping and ":" in text and not text.startswith("{"):  # 128:12,160:4; YAML would take it for hours
        pairs = (part.partition(":") for part in text.split(","))
        return {read_value(key): read_value(value) for key, _, value in pairs}
    if option.is_list and not text.startswith("[") and ("," in text or _only_list(kinds)):
        inner = next(typing.get_args(kind) for kind in kinds if typing.get_origin(kind) in (list, tuple))[0]
        return [part.strip() if inner in (str, Path) else read_value(part) for part in text.split(",")]
    if text != "null" and all(kind in (str, Path) or typing.get_origin(kind) is Literal for kind in kinds):
        return text
    return read_value(text)


def _only_list(kinds: Sequence[Any]) -> bool:
    return all(typing.get_origin(kind) in (list, tuple) for kind in kinds)
