"""Parses JSON that anybody may have written."""

from __future__ import annotations

import json
from typing import Any


def decode_json(text: str | bytes, finite: bool = True) -> Any:
    """Parses JSON with one kind of error for everything that can be wrong with it.

    Args:
        text: a JSON document; bytes are UTF-8, -16 or -32.
        finite: refuse numbers that are not finite, such as `1e400` or `NaN`. int() of them would raise another error.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or has a number that is not finite.
    """
    number = _finite if finite else float
    try:
        return json.loads(text, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _finite(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text[:20]} is not a finite number")
    return value
