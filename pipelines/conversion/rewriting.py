"""Rewrites progressive and arithmetic-coded JPEG files as baseline files with the same coefficients, as jpegtran does.

Only such files are written, into a folder beside the originals. libjpeg-turbo transcodes them; that a file decodes to
the same pixels is checked before it gets its name.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fixres.pipelines.crop_index import checkpoints
from fixres.pipelines.crop_index.index import CropIndex
from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.roc.decoder import turbojpeg
from fixres.pipelines.runtime.atomic_files import atomic_file, check_target, keep_outside
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.spec import InputError, Source

_REWRITTEN = (checkpoints.PROGRESSIVE, checkpoints.ARITHMETIC)


def rewrite_progressive(source: Source, dest: Path, progress: bool = True) -> int:
    """Writes a baseline copy of each progressive or arithmetic-coded image that the index of `source` knows.

    Args:
        source: image files, which have been indexed.
        dest: a folder outside the images; the copies keep their relative paths. Copies of an earlier call are kept.
        progress: show a bar.

    Returns:
        The number of copies.

    Raises:
        InputError: the images are no files, libturbojpeg is missing, a file cannot be transcoded, or another file has
            the name of a copy.
    """
    if not isinstance(source, FilesSource):
        raise InputError(f"{getattr(source, 'path', 'the source')}: only images in folders can be rewritten")
    check_rewriting(Path(source.path), dest)
    index = CropIndex(source)
    wanted = [one for one in range(len(source)) if index.kind(one) in _REWRITTEN]
    for one in progress_bar(len(wanted), f"writing {dest}", shown=progress, iterable=wanted):
        name, image = source.name(one), source.read(one)
        copy = transcode(image, name)
        if not np.array_equal(decode_rgb(image, name), decode_rgb(copy, name)):
            raise InputError(f"{name}: its copy would have other pixels, so it is not rewritten; leave it as it is")
        _write(dest / Path(name).relative_to(source.path), copy)
    return len(wanted)


def check_rewriting(data: Path, dest: Path) -> None:
    """Raises InputError unless `dest` is a folder outside the images `data`, or can become one."""
    keep_outside(data, dest)
    check_target(dest, folder=True)


def _write(target: Path, copy: bytes) -> None:
    if target.is_file() and target.read_bytes() == copy:  # of an earlier call, which was interrupted
        return
    if target.exists():
        raise InputError(f"{target} exists and is no copy of that image; remove it, or choose another folder")
    with atomic_file(target) as partial:
        partial.write_bytes(copy)


class _Transform(ctypes.Structure):
    """TurboJPEG's tjtransform; all zeros copy the image and its markers as a baseline file."""

    _fields_ = (
        ("region", ctypes.c_int * 4),
        ("operation", ctypes.c_int),
        ("options", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("filter", ctypes.c_void_p),
    )


def transcode(image: bytes, name: str) -> bytes:
    """A baseline JPEG file with the coefficients and markers of the JPEG file `image`.

    Raises:
        InputError: libjpeg-turbo cannot read it. The message has the image's `name`.
    """
    library = turbojpeg.load()
    target, size = ctypes.c_void_p(), ctypes.c_ulong()
    with _transformer(library) as handle:
        try:
            failed = library.tjTransform(
                ctypes.c_void_p(handle), image, ctypes.c_ulong(len(image)), 1, ctypes.byref(target), ctypes.byref(size),
                ctypes.byref(_Transform()), turbojpeg.LIMIT_SCANS,
            )  # fmt: skip
            if failed:
                library.tjGetErrorStr2.restype = ctypes.c_char_p
                why = library.tjGetErrorStr2(ctypes.c_void_p(handle)).decode(errors="replace")
                raise InputError(f"{name}: cannot be rewritten ({why}); leave it as it is, or repair it")
            return ctypes.string_at(target, size.value)
        finally:
            library.tjFree(target)


@contextmanager
def _transformer(library: ctypes.CDLL) -> Iterator[int]:
    library.tjInitTransform.restype = ctypes.c_void_p
    handle = library.tjInitTransform()
    if not handle:
        raise MemoryError("libturbojpeg could not allocate a transformer")
    try:
        yield handle
    finally:
        library.tjDestroy(ctypes.c_void_p(handle))
