"""Converts images to what an engine reads: once, and again only if the images or the options change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fixres.pipelines.datasets.fingerprints import files_digest, short_digest
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.runtime.notices import notice
from fixres.pipelines.sources import open_folder
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.spec import DataConfig, InputError

# What each engine reads: a format of fixres.pipelines.conversion.converter, or None for the image folder itself.
_FORMATS = dict.fromkeys(("torch", "roc", "roc-gpu", "dali-slice"))
_FORMATS |= {"ffcv": "ffcv", "dali": "webdataset", "roc-dali": "roc"}
_VERSION = 2  # raise it when the same images and options give other files
_READ_BETON = ("roc", "roc-gpu", "roc-dali", "ffcv", "torch", "dali-slice")


def convert_for_engine(engine: str, path: Path, config: DataConfig) -> Path:
    """The images as `engine` reads them: `path` itself, or a file converted once into `config.work_dir`.

    Args:
        engine: one of fixres.pipelines.loaders.ENGINES.
        path: an ImageFolder, or a .beton file, which is never converted again.
        config: the folder and the options of the conversion.
    """
    if engine not in _FORMATS:
        raise InputError(f"engine={engine!r} does not exist; choose one of {', '.join(_FORMATS)}")
    if path.is_file() and engine not in _READ_BETON:
        raise InputError(f"engine={engine!r} cannot read {path}; choose one of {', '.join(_READ_BETON)}")
    format = _FORMATS[engine]
    if path.is_file() or format is None:
        return path
    # A bad image always stops: names and labels must be those of the folder.
    options = {"format": format, "max_side": config.max_side, "quality": config.quality, "on_bad": "stop"}
    folder = path.resolve()
    digest = short_digest(f"{folder} {json.dumps(options)}")
    ending = "" if format == "webdataset" else ".beton"
    stored = config.work_dir / f"{folder.parent.name}-{path.name}-{digest}{ending}"
    record = {"version": _VERSION, "source": str(folder), **options}
    return convert_once(open_folder(path), stored, format, config, record)


def convert_once(source: FilesSource, stored: Path, format: str, config: DataConfig, record: dict[str, Any]) -> Path:
    """Converts `source` into `stored`, unless it was made from the same files with the same record.

    Args:
        source: image files.
        stored: the file or folder to make. Its record, `stored`.json, has the digest of the source's files.
        format: of fixres.pipelines.conversion.converter.
        config: the options of the conversion.
        record: everything else that determines the result.

    Returns:
        `stored`.
    """
    from fixres.pipelines.conversion.converter import convert
    from fixres.pipelines.conversion.task import ConversionConfig

    record = record | {"files": files_digest(source)}
    record_file = stored.with_name(stored.name + ".json")
    if stored.exists() and _read_json(record_file) == record:
        return stored
    # A crash between the two writes leaves a file without a record, not with an old one.
    record_file.unlink(missing_ok=True)
    conversion = ConversionConfig(
        format,
        config.max_side,
        config.quality,
        num_workers=config.num_workers,
        overwrite=True,
        restart=None,
    )
    notice(f"{source.path} is converted once for this engine and these options, into {stored}; later runs reuse it")
    convert(source, stored, conversion)
    write_json(record_file, record)
    return stored


def _read_json(path: Path) -> object:
    """The content of `path`, or None if it is missing or not JSON."""
    try:
        return decode_json(path.read_text())
    except (OSError, ValueError):
        return None
