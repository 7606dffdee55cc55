"""Reads records: the JSON file that each benchmark writes; `benchmarks.harness.records` makes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

VERSION = 3
"""Versions 1 and 2 had other field names."""


def read_record(path: Path, kind: str | None = None) -> dict[str, Any]:
    """Reads a record.

    Raises:
        InputError: the file does not exist, is not a record, or has another kind or version.
    """
    try:
        content = decode_json(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; make it with the benchmark and --json {path}") from None
    except ValueError as error:
        raise InputError(f"{path} is not a record: {error}; make it again") from None
    if not isinstance(content, dict) or content.get("version") != VERSION or "kind" not in content:
        raise InputError(f"{path} is not a record of version {VERSION}; make it again")
    if kind is not None and content["kind"] != kind:
        raise InputError(f"{path} is a record of kind {content['kind']!r}; kind {kind!r} is needed")
    return content
