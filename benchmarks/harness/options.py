"""Words of command lines that several benchmarks share."""

from __future__ import annotations

from pipelines.spec import InputError, check_resolution


def sides(text: str, name: str = "res") -> list[int]:
    """The sides in pixels that an option lists, such as 128,160; InputError names the option."""
    try:
        return [check_resolution(int(side)) for side in text.split(",")]
    except ValueError as error:
        raise InputError(f"{name}={text!r} must be sides in pixels such as 128,160: {error}") from None
