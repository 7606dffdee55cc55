"""Progress bars, log lines and tables for the terminal. Bars and lines go to stderr, from the main process only."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tqdm import tqdm

from fixres.distributed.process_group import is_main
from fixres.pipelines.runtime.progress import progress_bar


def bar(num_images: int, title: str, done: int = 0) -> tqdm:
    """A progress bar over images, `done` at its start, removed at its end; in the main process only."""
    return progress_bar(num_images, title, done=done, shown=is_main())


def log(line: str) -> None:
    """Writes a line to stderr without breaking a progress bar."""
    if is_main():
        tqdm.write(line, file=sys.stderr)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text: the first column to the left, the others to the right. All rows have as many cells."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
