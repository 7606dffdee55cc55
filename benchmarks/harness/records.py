"""Records: each benchmark writes its results to one JSON file. `fixres.reporting.records` reads them.

Every record has `version`, `kind` (which table it makes), `name` (the file's stem), `note`, `settings`, `environment`
and the fields of its kind; `partial` is true if Ctrl-C ended the measurement early. benchmarks/results/README.md
explains them to readers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from benchmarks.harness.options import BenchmarkOptions
from fixres.cli.output import STDOUT, put_json
from fixres.config.parsing import parse
from fixres.config.validation import as_plain
from fixres.reporting.records import VERSION

RESULTS = Path(__file__).parents[1] / "results"


def record(
    kind: str, settings: Mapping[str, Any], environment: Mapping[str, Any], note: str, partial: bool, **fields: Any
) -> dict[str, Any]:
    """A record as JSON can hold it.

    Args:
        kind: which table it makes.
        settings: the command's options, see `BenchmarkOptions.settings`; `json`, the file it will be written to, names
            the record.
        environment: of `conditions`.
        note: a sentence of conditions, shown below its table.
        partial: the measurement was interrupted.
        fields: the measurement.
    """
    return {
        "version": VERSION,
        "kind": kind,
        "name": name_of(settings.get("json"), kind),
        "note": note + (" Interrupted, so incomplete." if partial else ""),
        "partial": partial,
        **fields,
        # The place of files on this machine does not help on another one.
        "settings": {key: as_plain(value) for key, value in settings.items() if key not in ("json", "work_dir")},
        "environment": {**environment, "load_average_at_end": os.getloadavg()},
    }


def name_of(target: Path | None, kind: str) -> str:
    """A record's name: the stem of the file that `--json` names, else its kind."""
    return kind if target in (None, STDOUT) else target.stem


class Interruption:
    """A context that Ctrl-C leaves early: the code after it runs on, with the results so far.

    Attributes:
        happened: whether Ctrl-C ended the block.
    """

    happened = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: Any, _trace: TracebackType | None) -> bool:
        self.happened = kind is KeyboardInterrupt
        return self.happened


T = TypeVar("T", bound=BenchmarkOptions)


def command(
    kind: type[T], description: str, measure: Callable[[T], dict[str, Any]], table: Callable[[dict[str, Any]], str]
) -> Callable[[], None]:
    """The `main` of a benchmark: measures, prints the table, writes the record if `--json` names a file.

    Args:
        kind: the dataclass of its options.
        description: the beginning of `--help`.
        measure: makes the record.
        table: makes the table of a record.
    """

    def main() -> None:
        options = parse(kind, sys.argv[1:], description)
        content = measure(options)
        show(content, table(content), options.json)

    return main


def show(content: Mapping[str, Any], text: str, target: Path | None) -> None:
    """Prints the text, writes the record to `target` (or prints it instead), and raises as `leave_if_partial`."""
    if target != STDOUT:
        print(text)
    put_json(target, content)
    leave_if_partial(content, target)


def leave_if_partial(content: Mapping[str, Any], target: Path | None) -> None:
    """Raises KeyboardInterrupt, with a line that says what was kept, if the measurement was interrupted."""
    if content["partial"]:
        kept = f"the results so far are in {target}, marked partial" if target else "without --json nothing was kept"
        raise KeyboardInterrupt(f"interrupted; {kept}")
