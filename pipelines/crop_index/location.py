"""Where the index of some images lies: beside them if that place is writable, else in the user's cache folder.

A table that is no file of its own has its index there, too, under a digest of the table.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fixres.pipelines.runtime.json_text import decode_json

SPLIT_RECORD = "split.json"
NAME = ".fixres-index"
"""Of the index in a folder of images; a hidden name, which neither this project nor torchvision takes for a class."""
_COARSE = "-coarse"


class Places(NamedTuple):
    """Where the index of some images may lie."""

    read: tuple[Path, ...]  # later ones have the newer entries
    written: Path


def home_of(data: Path) -> Path:
    """The folder, or the file, whose index has the images of `data`.

    A folder of links that splits a folder of photographs (`datasets.split`) has the index of the photographs. Their
    names in both are the same.
    """
    with suppress(OSError, ValueError, KeyError, TypeError):
        return Path(decode_json((data.parent / SPLIT_RECORD).read_text())["source"])
    return data


def places_of(data: Path, table: str = "") -> Places:
    """The places of the index of `data`, a folder or a file; or of a table with a digest (`ImagePlaces.table`)."""
    if table:
        place = _cache() / f"table-{table}{NAME}"
        return Places((place,), place)
    data = home_of(data)
    first, second = beside(data), in_cache(data)
    is_writable = os.access(first.parent, os.W_OK | os.X_OK)
    return Places((first,), first) if is_writable else Places((first, second), second)


def coarse_places(places: Places) -> Places:
    """The places of the coarse levels beside those of an index."""
    read = tuple(path.with_name(path.name + _COARSE) for path in places.read)
    return Places(read, read[-1])


def call(data: Path, table: str, *options: str) -> str:
    """What the user types to index `data`, or a table."""
    if table:
        return f"fixres.index(dataset, {', '.join(f'{option}=True' for option in options)})"
    return shlex.join(["fixres", "index", str(home_of(data)), *(f"--{option}" for option in options)])


def remedy(data: Path, places: Places, table: str = "") -> str:
    """The call that makes the index of `data`, or of a table, again; with coarse levels if it has some."""
    has_levels = any(place.exists() for place in coarse_places(places).read)
    return call(data, table, *(["coarse"] if has_levels else []), "overwrite")


def beside(data: Path) -> Path:
    """The place beside the images: `FOLDER/.fixres-index`, or `.FILE.fixres-index` next to a single file."""
    data = data.absolute()
    return data / NAME if data.is_dir() else data.with_name(f".{data.name}{NAME}")


def in_cache(data: Path) -> Path:
    """The place for images in a folder that cannot be written; its name contains a digest of their path."""
    data = data.resolve()
    digest = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    return _cache() / f"{data.name}-{digest}{NAME}"


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roc-fixres" / "indexes"
