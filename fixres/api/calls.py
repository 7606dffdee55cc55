"""Calls from Python: arguments of the wrong type, and messages that name options of the command line."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from fixres.pipelines.errors import InputError
from fixres.pipelines.value_types import check_types

P = ParamSpec("P")
T = TypeVar("T")
_OPTIONS = re.compile(r";? see --help$|(python|fixres) .*|(?<![\w-])--([a-z][\w.-]*)(?: ([A-Z]{3,}|[0-9]+|scenes)\b)?")
_RENAMED = {"config": "recipe"}


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Makes arguments whose types are not those of the annotations, and options in messages, an InputError of one line.

    Example:
        >>> fixres.Loader("train.beton", resolution="128", batch_size=64)
        InputError: resolution='128' must be a whole number
    """
    signature, hints = inspect.signature(function), functools.cache(lambda: _hints_of(function))

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> T:
        check_types(signature.bind(*arguments, **named).arguments, hints())
        with options_as_keywords():
            return function(*arguments, **named)

    return call


def _hints_of(function: Callable) -> dict[str, Any]:
    """Types of the parameters; that of the result may be unknown while the program runs."""
    parameters = {name: hint for name, hint in function.__annotations__.items() if name != "return"}
    return typing.get_type_hints(types.SimpleNamespace(__annotations__=parameters), function.__globals__)


@contextmanager
def options_as_keywords(*groups: str) -> Iterator[None]:
    """In messages of InputErrors, an option such as "--num-workers 0" becomes "num_workers=0"; commands stay.

    Args:
        groups: of settings that the caller gives without their group's name: "finetune.epochs=0" becomes "epochs=0".
    """
    try:
        yield
    except InputError as error:
        text = _OPTIONS.sub(_as_keyword, str(error))
        for group in groups:
            text = re.sub(rf"(?<![\w/.]){group}\.(?=[a-z_]+[= ])", "", text)
        error.args = (text,)
        raise


def _as_keyword(found: re.Match[str]) -> str:
    if found[2]:
        name, value = found[2].replace("-", "_"), found[3] or ""
        return _RENAMED.get(name, name) + (f"={value}" if value.isdigit() else f'="{value}"' if value else "")
    return found[0] if found[1] else ""
