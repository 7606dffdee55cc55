"""What the writers of data files take, what they note of it, and how the finished data is checked."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fixres.pipelines.images.codec import decode_rgb
from fixres.pipelines.spec import Source

_NUM_DECODED = 16  # samples that `verify` decodes


class EncodedSample(NamedTuple):
    """One sample as the writers of data files take it.

    Attributes:
        image: a JPEG file.
        height: rows in pixels.
        width: columns in pixels.
        label: class number.
        index: the sample's number in its source.
        extra: further byte strings, which only `fixres.pipelines.formats.beton_writer` stores.
    """

    image: bytes
    height: int
    width: int
    label: int
    index: int
    extra: tuple[bytes, ...] = ()


class Entry(NamedTuple):
    """A sample that is written, or left out as bad, as the journal of a conversion notes it.

    Attributes:
        index: the sample's number in its source.
        label: class number.
        height, width: pixels of the stored image; 0 for a bad sample.
        passed: its JPEG was copied byte for byte.
        sizes: bytes of the stored image and of the extra fields; empty for a bad sample.
        problem: what is wrong with a bad sample, else "".
        stamp: checksum of size and time of the sample's file in the source; 0 if it has no file of its own.
    """

    index: int
    label: int
    height: int
    width: int
    passed: bool
    sizes: tuple[int, ...]
    problem: str
    stamp: int = 0

    @property
    def is_bad(self) -> bool:
        return not self.sizes


class ImagePlaces(NamedTuple):
    """Where the images of a source lie.

    Attributes:
        paths: of the files, all different.
        file_of: int64 (N,), the number of each image's file.
        item: int64 (N,), the position or number of the image in its file; 0 if the file is the image.
        table: a digest, if some images are rows of a table that is in memory or in files of another program; else "".
            File 0 is then this table, and its path names it in messages.
    """

    paths: Sequence[str]
    file_of: np.ndarray
    item: np.ndarray
    table: str = ""


def is_indexable(source: Source) -> bool:
    """Whether crops of a source's images are decoded by an index: it tells where they lie, and they are encoded files.

    .beton files are not, as a source; their paths say whether they have records of their own.
    """
    return getattr(source, "places", None) is not None and not hasattr(source, "field_names")


def verify(source: Source, labels: np.ndarray, sizes: np.ndarray) -> None:
    """Compares written data with what the writer was given: all labels, and the sizes of some decoded images.

    Args:
        source: the written data, opened again.
        labels: int64 (N,).
        sizes: int64 (N, 2), heights and widths.

    Raises:
        OSError: the disk returned something else.
        BadSampleError: one of the images cannot be decoded.
    """
    if not np.array_equal(source.labels, labels):
        raise OSError(errno.EIO, f"{len(source)} samples came back from disk, not the {len(labels)} written; try again")
    for index in np.unique(np.linspace(0, len(labels) - 1, _NUM_DECODED).astype(int)):
        name = source.name(int(index))
        shape = decode_rgb(source.read(int(index)), name, int(index)).shape[:2]
        if shape != tuple(sizes[index]):
            raise OSError(errno.EIO, f"{name} came back from disk as another image; try again")
