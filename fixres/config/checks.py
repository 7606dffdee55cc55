"""Checks of single settings, which several dataclasses have."""

from __future__ import annotations

import re
from collections.abc import Sequence

from fixres.pipelines.spec import InputError, check_resolution

MAX_POINTS = 1000  # of a schedule
_MAX_RESOLUTIONS = 64
_MAX_BATCH = 1 << 17


def positive(name: str, value: float) -> None:
    """Raises InputError unless a value is above 0."""
    if not value > 0:
        raise InputError(f"{name}={value} must be above 0")


def at_most(name: str, value: float, limit: int, unit: str) -> None:
    """Raises InputError for more than `limit` of a unit."""
    if value > limit:
        raise InputError(f"{name} may be {limit} {unit} at most, not {value}")


def check_batch_size(name: str, value: int) -> None:
    """Raises InputError for a number of images that no step can have."""
    positive(name, value)
    at_most(name, value, _MAX_BATCH, "images")


def check_resolutions(name: str, resolutions: Sequence[int]) -> None:
    """Raises InputError for too many test resolutions, or one that loaders do not support."""
    at_most(name, len(resolutions), _MAX_RESOLUTIONS, "resolutions")
    for resolution in resolutions:
        check_resolution(resolution)


def check_device(name: str) -> None:
    """Raises InputError for a word that names no device; whether the machine has it is known once torch is loaded."""
    if not re.fullmatch("auto|(cpu|cuda)(:[0-9]{1,3})?", name):
        raise InputError(f"device={name!r} is unknown; use auto, cpu or cuda[:n]")
