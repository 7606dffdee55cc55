"""Where the images of a `Dataset` of Hugging Face lie: in which rows of its Arrow table, or in which files.

Selections, shuffles and splits of a table show other rows of it, and have one index together.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from fixres.pipelines.formats.samples import ImagePlaces

_DIGEST_SIZE = 16  # characters


def has_table(dataset: Any, column: str) -> bool:
    """Whether this is a `Dataset` over an Arrow table with a column of images that `places_in_table` can read."""
    if not hasattr(dataset, "_indices") or not hasattr(getattr(dataset, "data", None), "column"):
        return False
    return _parts(dataset, column)[0] is not None


def places_in_table(dataset: Any, column: str, name: str) -> ImagePlaces:
    """The places of the images that a `Dataset` shows.

    An image is a row of the table, or the file that the row names if it has no bytes. The table's digest is made of the
    bytes' lengths and the files' names. So tables of different images may have the same one.

    Args:
        dataset: see `has_table`.
        column: of images, not decoded.
        name: of the data set, for messages.
    """
    import pyarrow.compute as compute

    data, paths = _parts(dataset, column)
    sizes = compute.fill_null(compute.binary_length(data), -1).to_numpy().astype(np.int64)
    numbers: dict[str, int] = {}  # of the files
    file_of, empty = np.zeros(len(sizes), np.int64), np.flatnonzero(sizes < 0)
    if paths is not None:
        for row, path in zip(empty.tolist(), paths.take(empty).to_pylist(), strict=True):
            if path:
                file_of[row] = numbers.setdefault(path, len(numbers) + 1)
    key = hashlib.sha256(sizes.tobytes() + "\0".join(numbers).encode("utf-8", "surrogatepass")).hexdigest()
    rows = _rows(dataset)
    shown, file_of = np.unique(np.append(0, file_of[rows]), return_inverse=True)
    files = [name, *numbers]
    items = np.where(file_of[1:] > 0, 0, rows)
    return ImagePlaces([files[number] for number in shown.tolist()], file_of[1:], items, key[:_DIGEST_SIZE])


def _rows(dataset: Any) -> np.ndarray:
    """int64 (N,): the rows of the table that a `Dataset` shows."""
    if dataset._indices is None:
        return np.arange(len(dataset))
    return dataset._indices.column(0).to_numpy().astype(np.int64)


def _parts(dataset: Any, column: str) -> tuple[Any, Any]:
    """The columns of bytes and of paths in the table; None for one that it does not have."""
    import pyarrow as arrow

    images = dataset.data.column(column)
    if arrow.types.is_struct(images.type):
        named = {field.name: part for field, part in zip(images.type, images.flatten(), strict=True)}
        data, paths = named.get("bytes"), named.get("path")
    else:
        data, paths = images, None
    is_bytes = data is not None and (arrow.types.is_binary(data.type) or arrow.types.is_large_binary(data.type))
    return data if is_bytes else None, paths
