"""The images of a folder as an engine reads them: converted once, and again only when something changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any, Literal

from pipelines.runtime.atomic_files import write_json
from pipelines.sources.folder import FilesSource, FolderSource
from pipelines.spec import InputError

# What each engine reads: a format of pipelines.conversion.converter, or None for the image folder itself.
_STORED_AS = {"torch": None, "dali-slice": None, "roc": "roc", "roc-dali": "roc", "ffcv": "ffcv", "dali": "webdataset"}
_STORED_VERSION = 1  # raise it when the same images and options come to be stored otherwise
# Engines that read .beton files as they are.
_READ_BETON = ("roc", "roc-dali", "ffcv", "torch", "dali-slice")
_log = logging.getLogger(__name__)


def stored_for(
    engine: str,
    folder: Path,
    work_dir: Path,
    max_side: int,
    quality: int,
    num_workers: int,
    on_bad: Literal["stop", "replace"] = "stop",
) -> Path:
    """The images of `folder` as `engine` reads them: the folder itself, or a file converted once into `work_dir`.

    A converted file is used again while names, sizes and times of the images and all options are those of its record.

    Args:
        engine: one of pipelines.loaders.ENGINES.
        folder: an ImageFolder, or a .beton file, which is never converted again.
        work_dir: where converted files are kept.
        max_side: longest side of a stored image in pixels.
        quality: JPEG quality of images that are encoded again.
        num_workers: processes that convert.
        on_bad: a bad image stops the conversion, or is left out and logged.
    """
    if engine not in _STORED_AS:
        raise InputError(f"engine={engine!r} does not exist; choose one of {', '.join(_STORED_AS)}")
    format = _STORED_AS[engine]
    if folder.is_file():
        if engine not in _READ_BETON:
            raise InputError(f"engine={engine!r} cannot read {folder}; choose one of {', '.join(_READ_BETON)}")
        return folder
    if format is None:
        return folder
    options = {"format": format, "max_side": max_side, "quality": quality, "on_bad": on_bad}
    place = short_digest(f"{folder.resolve()} {json.dumps(options)}")
    ending = "" if format == "webdataset" else ".beton"
    stored = work_dir / f"{folder.resolve().parent.name}-{folder.name}-{place}{ending}"
    record = stored.with_name(stored.name + ".json")
    source = FolderSource(folder)
    of = {"version": _STORED_VERSION, "source": str(folder.resolve()), **options, "files": files_digest(source)}
    if not (stored.exists() and read_json(record) == of):
        # A crash between the two writes leaves a file without a record, not with an old one.
        record.unlink(missing_ok=True)
        _convert(source, stored, options, num_workers, of["files"])
        write_json(record, of)
    return stored


def _convert(source: FolderSource, stored: Path, options: dict[str, Any], num_workers: int, fingerprint: str) -> None:
    from pipelines.conversion.converter import convert

    on_bad = "skip" if options["on_bad"] == "replace" else "stop"
    more = {"num_workers": num_workers, "overwrite": True, "restart": None, "fingerprint": fingerprint}
    done = convert(source, stored, **options | {"on_bad": on_bad}, **more)
    for line in done.bad_samples:
        _log.warning("left out: %s", line)


def files_digest(source: FilesSource) -> str:
    """Digest of names (relative to the folder), sizes and modification times of all images.

    One that cannot be looked at is told by whoever reads it.
    """
    digest = hashlib.sha256()
    for file in source.files:
        try:
            status = os.stat(file)
            size, time = status.st_size, status.st_mtime_ns
        except OSError:
            size, time = -1, -1
        name = os.path.relpath(file, source.path)
        digest.update(f"{name}\0{size}\0{time}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_json(path: Path) -> object:
    """What `path` holds, or None if it is missing or no JSON."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def short_digest(text: str) -> str:
    """10 hex digits that tell apart what is made here of different things."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:10]
