"""Reads back a data file that was just written, before it gets its final name."""

from __future__ import annotations

import errno

import numpy as np

from pipelines.images.codec import decode_rgb
from pipelines.spec import Source

_NUM_DECODED = 16  # samples that `verify` decodes


def verify(source: Source, labels: np.ndarray, sizes: np.ndarray) -> None:
    """Reads back what was written: count and all labels, and the size of some decoded images.

    Args:
        source: the written data, opened anew.
        labels: int64 (N,), as they were handed to the writer.
        sizes: int64 (N, 2), height and width likewise.
    """
    if not np.array_equal(source.labels, labels):
        raise OSError(errno.EIO, f"{len(source)} samples came back from disk, not the {len(labels)} written; try again")
    for index in np.unique(np.linspace(0, len(labels) - 1, _NUM_DECODED).astype(int)):
        name = source.name(int(index))
        shape = decode_rgb(source.read(int(index)), name, int(index)).shape[:2]
        if shape != tuple(sizes[index]):
            raise OSError(errno.EIO, f"{name} came back from disk as another image; try again")
