"""Makes one file, or one folder of shards, of all parts of a conversion: byte for byte what one process had made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pipelines.formats.beton_reader import BetonReader
from pipelines.formats.beton_writer import BetonWriter, finish_beton
from pipelines.formats.parts import check_complete
from pipelines.formats.samples import EncodedSample
from pipelines.formats.webdataset_reader import TarSource
from pipelines.formats.webdataset_writer import ShardWriter
from pipelines.images.codec import image_size
from pipelines.runtime.atomic_files import atomic_file, atomic_folder, keep_source
from pipelines.spec import InputError


def merge(parts: list[Path], dest: Path, overwrite: bool = False, progress: bool = True) -> int:
    """Joins parts after checking that they are complete and belong together.

    Args:
        parts: all parts of one conversion, in any order.
        dest: the file or folder to make.
        overwrite: replace an existing `dest`.
        progress: show a progress bar.

    Returns:
        Number of samples.
    """
    files = check_complete(parts)
    for file in files:
        keep_source(file, dest)
    readers = [BetonReader(file) if file.is_file() else TarSource(file) for file in files]
    about = _common(readers, files)
    total = sum(map(len, readers))
    with tqdm(total=total, desc=dest.name, unit=" images", disable=None if progress else True) as bar:
        samples = _samples(readers, bar)
        if isinstance(readers[0], TarSource):
            with (
                atomic_folder(dest, overwrite) as folder,
                ShardWriter(folder, readers[0].classes, about=about) as shards,
            ):
                for sample in samples:
                    shards.write(sample)
                shards.finish()
                shards.verify()
            return total
        extra = [name for name in readers[0].field_names if name not in ("image", "label")]
        num_source = readers[0].about["part"]["source_samples"]
        with atomic_file(dest, overwrite) as file:
            with BetonWriter(file, num_source, _named_classes(readers[0]), extra, about=about) as writer:
                for sample in samples:
                    writer.write(sample)
                finish_beton(writer)
    return total


def _named_classes(reader: BetonReader) -> tuple[str, ...]:
    return tuple(reader.about.get("classes", ()))


def _common(readers: list[Any], files: list[Path]) -> dict[str, Any]:
    """What all parts tell of themselves, without what makes them parts."""
    first = readers[0].about
    if "part" not in first:
        raise InputError(f"{files[0]} does not tell which part it is; convert it again with --shard i/n")
    kept = [{key: value for key, value in first["part"].items() if key != "number"}, readers[0].classes]
    for reader, file in zip(readers, files, strict=True):
        part = reader.about.get("part", {})
        if [{key: value for key, value in part.items() if key != "number"}, reader.classes] != kept:
            raise InputError(f"{file} is not of the same source, options and count as {files[0]}; make it again")
    return {key: value for key, value in first.items() if key not in ("part", "classes", "num_samples")}


def _samples(readers: list[Any], bar: tqdm) -> Iterator[EncodedSample]:
    for reader in readers:
        for sample in _in_tars(reader) if isinstance(reader, TarSource) else _in_beton(reader):
            yield sample
            bar.update()


def _in_beton(reader: BetonReader) -> Iterator[EncodedSample]:
    extra = [name for name in reader.field_names if name not in ("image", "label")]
    for index in range(len(reader)):
        height, width = (int(side) for side in reader.sizes[index])
        fields = tuple(bytes(reader.field_bytes(name, index)) for name in extra)
        label = int(reader.labels[index])
        yield EncodedSample(bytes(reader.image_bytes(index)), height, width, label, index, fields)


def _in_tars(source: TarSource) -> Iterator[EncodedSample]:
    for index in source.stored_order():
        image, name = source.read(int(index)), source.name(int(index))
        height, width = image_size(image, name)
        yield EncodedSample(image, height, width, int(source.labels[index]), int(source.numbers[index]), ())


def parts_beside(dest: Path) -> list[Path]:
    """The parts of `dest` that lie where `dest` would."""
    return sorted(np.unique([*dest.parent.glob(f"{dest.stem}-?????-of-?????{dest.suffix}")]).tolist())
