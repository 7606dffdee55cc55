"""Merges the parts of a conversion into one file or folder, byte for byte as one process would have written it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.beton_writer import BetonWriter, finish_beton
from fixres.pipelines.formats.parts import check_alike, check_complete
from fixres.pipelines.formats.samples import EncodedSample
from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.formats.webdataset_writer import ShardWriter
from fixres.pipelines.images.codec import image_size
from fixres.pipelines.runtime.atomic_files import atomic_file, atomic_folder, keep_source
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.spec import InputError


def merge(parts: list[Path], dest: Path, overwrite: bool = False, progress: bool = True) -> int:
    """Merges parts after checking that they are complete and belong together.

    Args:
        parts: all parts of one conversion, in any order.
        dest: the file or folder to write.
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
    with progress_bar(total, dest.name, shown=progress, leave=True) as bar:
        if isinstance(readers[0], TarSource):
            _merge_shards(readers, dest, overwrite, about, bar)
        else:
            _merge_beton(readers, dest, overwrite, about, bar)
    return total


def _merge_shards(sources: list[TarSource], dest: Path, overwrite: bool, about: dict[str, Any], bar: tqdm) -> None:
    with (
        atomic_folder(dest, overwrite, "*.idx") as folder,
        ShardWriter(folder, sources[0].classes, about=about) as writer,
    ):
        for source in sources:
            for sample in _shard_samples(source):
                writer.write(sample)
                bar.update()
        writer.finish()
        writer.verify()


def _merge_beton(readers: list[BetonReader], dest: Path, overwrite: bool, about: dict[str, Any], bar: tqdm) -> None:
    first = readers[0]
    extra = [name for name in first.field_names if name not in ("image", "label")]
    num_source = first.about["part"]["source_samples"]  # for each, the parts have reserved some bytes
    if not sum(map(len, readers)) <= num_source <= sum(len(reader.data) for reader in readers):
        raise InputError(f"{first.path}: its source cannot have had {num_source} samples; convert it again")
    with (
        atomic_file(dest, overwrite) as file,
        BetonWriter(file, num_source, first.about.get("classes", ()), extra, about=about) as writer,
    ):
        for reader in readers:
            for sample in _beton_samples(reader, extra):
                writer.write(sample)
                bar.update()
        finish_beton(writer)


def _common(readers: list[Any], files: list[Path]) -> dict[str, Any]:
    """What all parts store about themselves, without the entries that make them parts."""
    part = check_alike(files, [reader.about for reader in readers])
    if not part:
        raise InputError(f"{files[0]} does not store which part it is; convert it again with --shard i/n")
    for reader, file in zip(readers, files, strict=True):
        if reader.classes != readers[0].classes:
            raise InputError(f"{file} has other classes than {files[0]}; convert it again")
    return {key: value for key, value in readers[0].about.items() if key not in ("part", "classes", "num_samples")}


def _beton_samples(reader: BetonReader, extra: list[str]) -> Iterator[EncodedSample]:
    for index in range(len(reader)):
        height, width = (int(side) for side in reader.sizes[index])
        fields = tuple(bytes(reader.field_bytes(name, index)) for name in extra)
        label = int(reader.labels[index])
        yield EncodedSample(bytes(reader.image_bytes(index)), height, width, label, index, fields)


def _shard_samples(source: TarSource) -> Iterator[EncodedSample]:
    for index in source.stored_order():
        image, name = source.read(int(index)), source.name(int(index))
        height, width = image_size(image, name)
        yield EncodedSample(image, height, width, int(source.labels[index]), int(source.numbers[index]), ())


def parts_beside(dest: Path) -> list[Path]:
    """The parts of `dest` in its folder."""
    return sorted(set(dest.parent.glob(f"{dest.stem}-?????-of-?????{dest.suffix}")))
