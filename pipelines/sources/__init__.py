"""Where images come from: `open_source` tells the kinds of stored data apart by what lies at the path."""

from __future__ import annotations

from pathlib import Path

from pipelines.spec import InputError, Source


def open_source(path: str | Path) -> Source:
    """Opens an ImageFolder directory, a .beton file or a folder of its parts, or a folder of webdataset shards.

    Args:
        path: a folder with a subfolder for each class, a .beton file, or a folder with .tar shards.
    """
    path = Path(path)
    if path.is_file():
        from pipelines.beton import BetonReader

        if path.suffix == ".tar":
            raise InputError(f"{path} is one shard; give the folder it lies in")
        return BetonReader(path)
    if not path.is_dir():
        raise InputError(f"{path} does not exist; give an image folder, a .beton file or a folder of .tar shards")
    if any(path.glob("*.beton")):
        from pipelines.beton_parts import BetonParts

        return BetonParts(path)
    if any(path.glob("*.tar")):
        from pipelines.sources.tars import TarSource

        return TarSource(path)
    from pipelines.sources.folder import FolderSource

    return FolderSource(path)
