"""Checks finished data: decodes all samples and counts the classes."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from fixres.pipelines.formats.beton_reader import BetonData
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.images.jpeg_damage import check_jpeg, is_jpeg
from fixres.pipelines.runtime.notices import counted
from fixres.pipelines.runtime.process_pool import map_chunks, num_processes
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import BadSampleError, InputError, Source

_CHUNK = 64


def verify_data(path: Path, num_workers: int | None = None, progress: bool = True) -> str:
    """Decodes all samples of anything that `open_source` opens, and all levels of RoC records.

    Processes are as many as `num_workers`, or as all cores if that is None. Returns a line with the counts.

    Raises:
        InputError: samples cannot be decoded; the message names the first.
    """
    source = open_source(path)
    order, bad = np.arange(len(source)), []
    workers = num_processes(num_workers, -(-len(source) // _CHUNK))
    with progress_bar(len(source), f"verifying {path.name}", shown=progress, leave=True) as bar:
        for found in map_chunks(partial(_decode, source), order, _CHUNK, workers):
            bad += found
            bar.update(min(_CHUNK, len(source) - bar.n))
    if bad:
        raise InputError(f"{len(bad)} of {len(source)} samples are damaged, the first is {bad[0]}; convert again")
    counts = np.bincount(source.labels, minlength=len(source.classes))
    return (
        f"{path}: {counted(len(source), 'image')} without damage; {counted(len(counts), 'class', 'classes')}"
        f" with {counts.min()} to {counted(int(counts.max()), 'image')}"
        + (f", {int((counts == 0).sum())} of them empty" if not counts.all() else "")
    )


def _decode(source: Source, indices: np.ndarray) -> list[str]:
    """Runs in a worker. Returns a line for each damaged sample."""
    bad = []
    for index in indices.tolist():
        try:
            _decode_one(source, index)
        except BadSampleError as error:
            bad.append(str(error))
    return bad


def _decode_one(source: Source, index: int) -> None:
    data, name = source.read(index), source.name(index)
    pixels = decode_rgb(data, name, index)
    plain = not is_jpeg(data) or check_jpeg(data, name, index).plain
    sizes = getattr(source, "sizes", None)
    if sizes is not None and pixels.shape[:2] != tuple(sizes[index]):
        raise BadSampleError(f"{name}: its size differs from the file's table", index)
    if sizes is not None and not plain:
        raise BadSampleError(f"{name}: a JPEG of a kind that the engines decode differently or refuse", index)
    check_record(source, index)


def check_record(source: Source, index: int) -> None:
    """Raises BadSampleError if a sample of a .beton file has a RoC record that is damaged; decodes all its segments.

    This finds about half of single wrong bytes (67 of 150, benchmarks/LOG.md). A decoder of whole JPEG files
    continues after an error and finds none.
    """
    source = getattr(source, "source", source)
    if isinstance(source, BetonData) and "roc" in source.field_names:
        from fixres.pipelines.roc.verification import check_sample  # imports numba

        check_sample(source, index)
