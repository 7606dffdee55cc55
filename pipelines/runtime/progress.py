"""Progress of long work on stderr: a bar on a terminal, otherwise a line from time to time."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_SECONDS_BETWEEN_LINES = 30.0  # in log files
_SECONDS_OF_SILENCE = 1.0  # shorter work shows nothing
_LINE = "{desc}: {percentage:.0f} %, {n_fmt} of {total_fmt}{unit}, {elapsed} passed, {remaining} left"


def progress_bar(
    total: int | None,
    title: str,
    *,
    done: int = 0,
    unit: str = "images",
    shown: bool = True,
    leave: bool = False,
    iterable: Iterable[Any] | None = None,
) -> tqdm:
    """A bar, which `update(n)` moves on, or which wraps `iterable`.

    Args:
        total: amount of work; None if it is unknown.
        title: what is being done.
        done: amount that is done already.
        unit: of `total`.
        shown: False for none.
        leave: whether the full bar stays on the terminal.
        iterable: values to pass on, one for each unit of work.
    """
    common = {"iterable": iterable, "total": total, "initial": done, "desc": title, "unit": f" {unit}"}
    if not shown or sys.stderr.isatty():
        return tqdm(**common, leave=leave, disable=not shown, mininterval=0.5, delay=_SECONDS_OF_SILENCE)
    return tqdm(
        **common,
        leave=False,
        file=_Lines(),
        mininterval=_SECONDS_BETWEEN_LINES,
        maxinterval=2 * _SECONDS_BETWEEN_LINES,
        delay=_SECONDS_BETWEEN_LINES,
        bar_format=_LINE if total else None,
    )


class _Lines:
    """A file for tqdm that makes a line of what would overwrite the line before."""

    def write(self, text: str) -> None:
        if line := text.strip():
            sys.stderr.write(f"{line}\n")

    def flush(self) -> None:
        sys.stderr.flush()
