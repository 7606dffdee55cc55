"""Records: each benchmark writes its results to one JSON file, and all of them are written and read here.

Every record has `version`, `kind` (which table it makes), `name` (the file's stem), `note`, `settings`, `environment`
and the fields of its kind; `partial` is true if Ctrl-C ended the measurement early. benchmarks/results/README.md
explains them to readers.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.spec import InputError

RESULTS = Path(__file__).parents[1] / "results"
VERSION = 3
"""Versions 1 and 2 had other field names."""


def record(
    kind: str, settings: Mapping[str, Any], environment: Mapping[str, Any], note: str, partial: bool, **fields: Any
) -> dict[str, Any]:
    """A record as JSON can hold it.

    Args:
        kind: which table it makes.
        settings: the command's options; `json`, the file it will be written to, names the record.
        environment: of `conditions`.
        note: a sentence of conditions, shown below its table.
        partial: the measurement was interrupted.
        fields: the measurement.
    """
    target = settings.get("json")
    return {
        "version": VERSION,
        "kind": kind,
        "name": target.stem if target else kind,
        "note": note + (" Interrupted, so incomplete." if partial else ""),
        "partial": partial,
        **fields,
        # The place of files on this machine does not help on another one.
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()
                     if key not in ("json", "work_dir")},
        "environment": {**environment, "load_average_at_end": os.getloadavg()},
    }  # fmt: skip


def read_record(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Reads a record.

    Raises:
        InputError: the file does not exist, is not a record, or has another kind or version.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; make it with the benchmark and --json {path}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a record: {error}; make it again") from None
    if not isinstance(content, dict) or content.get("version") != VERSION or "kind" not in content:
        raise InputError(f"{path} is not a record of version {VERSION}; make it again")
    if kind is not None and content["kind"] != kind:
        raise InputError(f"{path} is a record of kind {content['kind']!r}; kind {kind!r} is needed")
    return content


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


def command(
    parse: Callable[[], argparse.Namespace],
    measure: Callable[[argparse.Namespace], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> Callable[[], None]:
    """The `main` of a benchmark: measures, prints the table, writes the record if `--json` names a file."""

    def main() -> None:
        options = parse()
        content = measure(options)
        print(table(content))
        if options.json:
            write_json(options.json, content)
        leave_if_partial(content, options.json)

    return main


def leave_if_partial(content: Mapping[str, Any], target: Path | None) -> None:
    """Raises KeyboardInterrupt, with a line that says what was kept, if the measurement was interrupted."""
    if content["partial"]:
        kept = f"the results so far are in {target}, marked partial" if target else "without --json nothing was kept"
        raise KeyboardInterrupt(f"interrupted; {kept}")
