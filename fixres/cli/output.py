"""Files that commands write besides their main result: JSON and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fixres.pipelines.runtime.atomic_files import atomic_file, check_json_target, check_target, write_json
from fixres.pipelines.spec import InputError

STDOUT = Path("-")


def check_json(path: Path | None) -> None:
    """Raises InputError before any work if the file of `--json` cannot be written."""
    if path is not None and path != STDOUT:
        check_json_target(path)


def check_png(path: Path | None, name: str) -> None:
    """Raises InputError before any work if the picture of the option `name` cannot be written."""
    if path is None:
        return
    if path.suffix.lower() != ".png":
        raise InputError(f"{name} {path} must be a .png file")
    check_target(path)


def put_json(path: Path | None, content: Any) -> None:
    """Writes what `--json` asks for: a file, or `-` for the terminal; nothing for None."""
    if path == STDOUT:
        print(json.dumps(content, indent=1))
    elif path is not None:
        write_json(path, content)


def put_picture(path: Path, picture: bytes) -> None:
    """Writes an encoded picture; an older one is replaced."""
    with atomic_file(path, overwrite=True) as partial:
        partial.write_bytes(picture)
