"""The parser of all plain command lines: a mistake in the call ends in one line instead of the list of options."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from fixres.pipelines.runtime.atomic_files import check_target
from fixres.pipelines.spec import InputError


class Parser(argparse.ArgumentParser):
    """argparse that raises `InputError`, which `exit_codes.run` turns into a line and an exit code.

    Args:
        description: the beginning of `--help`, printed as it is; usually the command's docstring.
        options: of `argparse.ArgumentParser`.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.register("type", float, _finite)

    def error(self, message: str) -> NoReturn:
        """Raises InputError with argparse's message."""
        raise InputError(f"{message}; see --help")


def output_file(text: str, folder: bool = False) -> Path:
    """An argparse type: the path of a file to write. Checks before any work that it can be written."""
    try:
        check_target(Path(text), folder)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def output_folder(text: str) -> Path:
    """An argparse type: the path of a folder to write to, which may exist."""
    return output_file(text, folder=True)


def number_or_inf(text: str) -> float:
    """An argparse type for the few options that may be infinite."""
    value = float(text)
    if math.isnan(value):
        raise ValueError(text)
    return value


def _finite(text: str) -> float:
    """The parser's `type=float`: refuses nan, which passes every comparison, and infinity."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
