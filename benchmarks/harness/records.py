"""Records: what a benchmark leaves behind, one JSON file each, written and read in one way.

Every record has `version`, `kind` (which table it makes), `name` (its file's stem), `note`, `settings`, `environment`
and its kind's own fields; `partial` is true if Ctrl-C cut the measurement short. benchmarks/results/README.md explains
them to readers.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.runtime.atomic_files import write_json
from pipelines.spec import InputError

RESULTS = Path(__file__).parents[1] / "results"
VERSION = 2
"""1 had no intervals, no CPU seconds, no page-cache state and never `partial`; its tables still render."""
_READABLE = (1, 2)


def record(
    kind: str,
    *,
    target: Path | None,
    note: str,
    settings: argparse.Namespace | Mapping[str, Any],
    environment: Mapping[str, Any],
    partial: bool = False,
    **fields: Any,
) -> dict[str, Any]:
    """A record as JSON can hold it.

    Args:
        kind: which table it makes.
        target: the file it will be written to, which names it; without one it is named after its kind.
        note: a sentence of conditions, shown below its table.
        settings: the command's options.
        environment: of `conditions`.
        partial: the measurement was interrupted.
        fields: the measurement.
    """
    options = vars(settings) if isinstance(settings, argparse.Namespace) else settings
    return {
        "version": VERSION,
        "kind": kind,
        "name": target.stem if target else kind,
        "note": note + (" Interrupted, so incomplete." if partial else ""),
        "partial": partial,
        **fields,
        # Where the machine keeps its files is of no use on another one.
        "settings": {
            key: str(value) if isinstance(value, Path) else value for key, value in options.items() if key != "work_dir"
        },
        "environment": {**environment, "load_average_at_end": os.getloadavg()},
    }


def read_record(path: Path, kind: str | None = None) -> dict[str, Any]:
    """A record of any version that this program knows.

    Raises:
        InputError: no such file, not a record, of another kind, or written by a later version.
    """
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; make it with python -m benchmarks.{kind or 'COMMAND'}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a record: {error}; make it again") from None
    if not isinstance(content, dict) or content.get("version") not in _READABLE or "kind" not in content:
        raise InputError(f"{path} is not a record of version {' or '.join(map(str, _READABLE))}; make it again")
    if kind is not None and content["kind"] != kind:
        raise InputError(f"{path} is a record of kind {content['kind']!r}, wanted is {kind!r}")
    return content


def finish(content: Mapping[str, Any], target: Path | None) -> None:
    """Writes the record if there is a target; after an interruption the command then ends as Ctrl-C does."""
    if target:
        write_json(target, content)
    leave_if_partial(content, target)


def leave_if_partial(content: Mapping[str, Any], target: Path | None) -> None:
    """Raises KeyboardInterrupt, with a line that says what was kept, if the measurement was interrupted."""
    if content.get("partial"):
        kept = f"what was measured so far is in {target}, marked partial" if target else "no --json, nothing was kept"
        raise KeyboardInterrupt(f"interrupted; {kept}")
