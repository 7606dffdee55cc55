"""The parser of every plain command line: a mistake in the call is one line, without the list of all options."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NoReturn

from pipelines.runtime.atomic_files import check_target
from pipelines.spec import InputError


class Parser(argparse.ArgumentParser):
    """argparse whose mistakes are an `InputError`, which `exit_codes.run` turns into a line and an exit code.

    Args:
        description: what `--help` begins with, printed as it is written; usually the command's docstring.
        options: of `argparse.ArgumentParser`.
    """

    def __init__(self, description: str | None = None, **options: Any) -> None:
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter, **options)
        self.register("type", float, _finite)

    def error(self, message: str) -> NoReturn:
        """Raises InputError with what argparse found."""
        raise InputError(f"{message}; see --help")


def output_file(text: str) -> Path:
    """A type for files to make: looks whether they can be made before the work that fills them."""
    try:
        check_target(Path(text))
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def output_folder(text: str) -> Path:
    """Likewise for folders; one that is there may be written into."""
    try:
        check_target(Path(text), folder=True)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def number_or_inf(text: str) -> float:
    """A type for the few options where infinity says something."""
    value = float(text)
    if math.isnan(value):
        raise ValueError(text)
    return value


def _finite(text: str) -> float:
    """What `type=float` means: no comparison catches nan, and no length or rate is infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
