"""A `Dataset` of the package `datasets` (Hugging Face) as a source: its images stay encoded.

The package itself is not imported: only methods of the object are used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fixres.pipelines.formats.webdataset_labels import MAX_CLASSES
from fixres.pipelines.imagenet_classes import numbered_classes
from fixres.pipelines.sources.table_rows import has_table, places_in_table
from fixres.pipelines.spec import BadSampleError, InputError

_SPLITS = {True: ("train",), False: ("validation", "val", "valid", "test")}


def is_dataset(given: Any) -> bool:
    """Whether this is a `datasets.Dataset`, or a `DatasetDict` of them."""
    if isinstance(given, Mapping):
        return bool(given) and all(map(is_dataset, given.values()))
    return all(hasattr(given, name) for name in ("features", "cast_column", "with_format", "select_columns"))


def split_of(given: Any, train: bool) -> Any:
    """The training or test split of a `DatasetDict`; a `Dataset` itself.

    Raises:
        InputError: it has no such split.
    """
    if not isinstance(given, Mapping):
        return given
    for name in _SPLITS[train]:
        if name in given:
            return given[name]
    raise InputError(f"the DatasetDict has {', '.join(given)} but no {_SPLITS[train][0]}; give one of its data sets")


class HuggingFaceSource:
    """Rows of a `Dataset` as a `Source`, in its order, selections and shuffles included.

    Args:
        dataset: with a column of images (`Image`, decoded or not, or bytes) and one of class numbers.
        image_column: "image", or the only column of type `Image`, by default.
        label_column: "label", or the only column of type `ClassLabel`, by default.

    Attributes:
        classes: synsets if they are ImageNet's 1000, else the names of the `ClassLabel`, else "0", "1", ...
        class_names: human-readable names of the classes.
        labels: int64 (N,).
        unnamed: whether the classes are numbers, because the column does not name them.
        path: no file, but the name of the data set for messages.
        places: gives the `ImagePlaces`; None for an object without an Arrow table.

    Raises:
        InputError: a column is missing or has another type, or a label is no class number.
    """

    def __init__(self, dataset: Any, image_column: str | None = None, label_column: str | None = None) -> None:
        if isinstance(dataset, Mapping):
            raise InputError(f"the DatasetDict holds {', '.join(map(str, dataset))}; give one of its data sets")
        if not hasattr(dataset, "__getitem__") or not len(dataset):
            raise InputError(f"{type(dataset).__name__} must hold rows that can be read in any order, at least one")
        plain = dataset.with_format(None)  # the user's format or transform would decode
        self._column = _column(plain.features, image_column, "image", "Image")
        label = _column(plain.features, label_column, "label", "ClassLabel")
        feature = plain.features[self._column]
        self._rows = plain.select_columns([self._column])
        if getattr(feature, "decode", False):
            self._rows = self._rows.cast_column(self._column, type(feature)(decode=False))
        labels = np.array(plain.select_columns([label])[:][label])
        names = tuple(getattr(plain.features[label], "names", None) or ())
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise InputError(f"column {label} of the Dataset must hold class numbers; choose another label_column")
        for row in np.flatnonzero((labels < 0) | (labels >= (len(names) or MAX_CLASSES)))[:1]:
            raise InputError(f"row {row} of the Dataset has the label {labels[row]}, no class number; filter it out")
        self.classes, self.class_names, self.labels, self.unnamed = numbered_classes(labels.astype(np.int64), names)
        self._name = f"Dataset {getattr(dataset, '_fingerprint', '')}".strip()  # changes with its content
        self.path, table = Path(self._name), (self._rows, self._column)
        self.places = partial(places_in_table, *table, self._name) if has_table(*table) else None

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The encoded image of a row, from the row itself or from the file that it names."""
        value = self._rows[int(index)][self._column]
        data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        try:
            data = Path(path).read_bytes() if data is None and path else data
        except OSError as error:
            raise BadSampleError(f"{self.name(index)}: {path} cannot be read ({error})", int(index)) from None
        if not isinstance(data, bytes) or not data:
            raise BadSampleError(f"{self.name(index)}: holds no image", int(index))
        return data

    def name(self, index: int) -> str:
        """The data set's fingerprint and the row."""
        return f"{self._name}: row {int(index)}"


def _column(features: Mapping[str, Any], wanted: str | None, usual: str, kind: str) -> str:
    """The name of the column to read."""
    of_kind = [name for name, feature in features.items() if type(feature).__name__ == kind]
    if wanted is None:
        wanted = usual if usual in features or len(of_kind) != 1 else of_kind[0]
    if wanted not in features:
        raise InputError(
            f"the Dataset has no column {wanted}, only {', '.join(features)}; rename one: "
            f'dataset.rename_column("{next(iter(features), "x")}", "{usual}")'
        )
    return wanted
