"""Lines about the data that a user must see, whichever command or class reads it."""

from __future__ import annotations

import os
import sys

from tqdm import tqdm

from fixres.pipelines.spec import one_line

_said: set[str] = set()


def notice(line: str) -> None:
    """Writes a line to stderr: once in each process, and of several processes of one run in the first only.

    A folder is opened several times in a run: to find its classes, to convert it, and by each loader.
    """
    line = one_line(line)
    if line not in _said and os.environ.get("RANK", "0") == "0":
        tqdm.write(line, file=sys.stderr)
    _said.add(line)


def counted(number: int, singular: str, plural: str = "") -> str:
    """ "1 class", "2 classes": the number and the word; the plural has an "s" if it is not given."""
    return f"{number} {singular if number == 1 else plural or f'{singular}s'}"
