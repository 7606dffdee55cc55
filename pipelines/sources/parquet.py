"""ImageNet as Hugging Face's parquet shards, read a row group at a time.

Parquet compresses columns in pages, so reading one image reads its row group (Hugging Face writes 100 images in each).
A conversion into .beton reads in order, so each process reads a group once. Random reads would read about 100 times the
bytes.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as pq

from fixres.pipelines.formats.samples import ImagePlaces
from fixres.pipelines.formats.webdataset_labels import MAX_CLASSES
from fixres.pipelines.imagenet_classes import numbered_classes
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.sources.splits import select_shards
from fixres.pipelines.spec import BadSampleError, InputError

_MAX_GROUP_BYTES = 2 << 30  # of one uncompressed row group, which must fit into memory
_CACHE_BYTES = 256 << 20  # for each process; the last group is kept even if it is larger
_ERRORS = (arrow.ArrowException, OSError, ValueError, OverflowError)


class Columns(NamedTuple):
    """Names of the columns with the encoded images and with the class numbers."""

    image: str = "image"
    label: str = "label"


USUAL_COLUMNS = Columns()


class _Shard(NamedTuple):
    """Contents of a shard's footer and label column."""

    path: Path
    column: str  # leaf column with the encoded images
    ends: np.ndarray  # int64 (G,), rows up to the end of each row group
    labels: np.ndarray  # int64 (rows,)
    names: tuple[str, ...]  # class names in label order, empty if the file has none


class ParquetSource:
    """Parquet shards with a column of images (bytes) and one of labels (int) as a `Source`, in stored order.

    Files are opened for each row group, so a source can be pickled and used after a fork.

    Attributes:
        path: the folder or file.
        shards: paths of the files, sorted.
        classes: synsets if they are ImageNet's 1000, else the names in the files' metadata, else "0", "1", ...
        class_names: human-readable names of the classes.
        labels: int64 (N,), as stored, unless the names are unsorted synsets.
        unnamed: whether the classes are numbers, because the files do not name them.
    """

    def __init__(self, path: str | Path, split: str | None = None, columns: Columns = USUAL_COLUMNS) -> None:
        """Reads footers and labels.

        Args:
            path: a parquet file, or a folder with shards, in it or in its data/ folder.
            split: "train", "val" or "test"; not needed if there is only one.
            columns: their names.
        """
        self.path = Path(path)
        files = parquet_files(self.path)
        if not files:
            raise InputError(f"{self.path} holds no .parquet files; give the folder that contains them")
        shards = [_read_shard(file, columns) for file in select_shards(self.path, files, split)]
        self.shards = [shard.path for shard in shards]
        for shard in shards[1:]:
            if shard.names != shards[0].names:
                raise InputError(
                    f"{shard.path} has other class names than {shards[0].path}; they are not shards of one set"
                )
        self._suffix = "" if columns.image == USUAL_COLUMNS.image else f", column {columns.image}"
        self._columns = [shard.column for shard in shards]
        self._group_ends = [shard.ends for shard in shards]
        self._ends = np.cumsum([len(shard.labels) for shard in shards])
        labels = np.concatenate([shard.labels for shard in shards])
        if not len(labels):
            raise InputError(f"{self.path}: its {len(shards)} parquet files hold no rows")
        self._check_labels(labels, shards[0].names)
        self.classes, self.class_names, self.labels, self.unnamed = numbered_classes(labels, shards[0].names)
        self._groups = _Groups()

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> bytes:
        """The encoded image in row `index`."""
        shard, row = self._place(index)
        group = int(np.searchsorted(self._group_ends[shard], row, side="right"))
        first = int(self._group_ends[shard][group - 1]) if group else 0
        try:
            column = self._groups.get(self.shards[shard], group, self._columns[shard])
            value = column[row - first].as_py()
        except _ERRORS as error:
            raise BadSampleError(f"{self.name(index)}: cannot be read ({_one_line(error)})", int(index)) from None
        if not value:
            raise BadSampleError(f"{self.name(index)}: holds no image bytes, perhaps only a path to a file", int(index))
        return value

    def name(self, index: int) -> str:
        """The shard's path, the row in it, and the column if it has another name than usual."""
        shard, row = self._place(index)
        return f"{self.shards[shard]}: row {row}{self._suffix}"

    def places(self) -> ImagePlaces:
        """Each image is a row of its shard."""
        shard = np.searchsorted(self._ends, np.arange(len(self)), side="right")
        return ImagePlaces(list(map(str, self.shards)), shard, np.arange(len(self)) - np.append(0, self._ends)[shard])

    def _place(self, index: int) -> tuple[int, int]:
        """Number of the shard, and row in it."""
        shard = int(np.searchsorted(self._ends, index, side="right"))
        return shard, int(index) - (int(self._ends[shard - 1]) if shard else 0)

    def _check_labels(self, labels: np.ndarray, names: Sequence[str]) -> None:
        if (labels == -1).all():
            raise InputError(
                f"{self.path} has the label -1 in every row, as ImageNet's test split; choose train or val"
            )
        bad = np.flatnonzero((labels < 0) | (labels >= (len(names) or MAX_CLASSES)))
        if len(bad):
            shard, row = self._place(int(bad[0]))
            known = f", of which {len(names)} are named" if names else ""
            raise InputError(
                f"{self.shards[shard]}: row {row} has the label {labels[bad[0]]}, which is not a class number{known}"
                f" ({len(bad)} of {len(labels)} rows); remove or correct these rows"
            )


def parquet_files(path: Path) -> list[Path]:
    """The parquet files: `path` itself, those in it, or those in its data/ folder as on the Hugging Face Hub."""
    if path.is_file():
        return [path]
    return sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))


class _Groups:
    """A cache of the images of the last row groups, which threads may share; a pickle contains none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[Path, int], arrow.ChunkedArray] = OrderedDict()

    def __reduce__(self) -> tuple:
        return _Groups, ()

    def get(self, path: Path, group: int, column: str) -> arrow.ChunkedArray:
        """The column of encoded images of a row group."""
        key = (path, group)
        with self._lock:
            if key not in self._kept:
                with _open(path) as file:
                    read = file.read_row_group(group, columns=[column], use_threads=False)
                self._kept[key] = read.flatten().column(0)
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > _CACHE_BYTES:
                self._kept.popitem(last=False)
            return self._kept[key]


def _read_shard(path: Path, columns: Columns) -> _Shard:
    try:
        with _open(path) as file:
            column, width = _image_column(path, file, columns)
            _check_groups(path, file.metadata, width)
            ends = np.cumsum([file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)], dtype=np.int64)
            labels = file.read(columns=[columns.label], use_threads=False).column(0)
            names = _class_names(file.schema_arrow.metadata or {}, columns.label)
            if labels.null_count:
                raise InputError(f"{path}: rows without a label: {labels.null_count}; remove them")
            labels = labels.to_numpy().astype(np.int64)
    except InputError:
        raise
    except _ERRORS as error:
        raise InputError(f"{path}: not a readable parquet file ({_one_line(error)}); download it again") from None
    if len(labels) != (ends[-1] if len(ends) else 0):
        raise InputError(f"{path}: damaged, its columns have different lengths; download it again")
    return _Shard(path, column, ends, labels, names)


def _open(path: Path) -> pq.ParquetFile:
    # pre_buffer=False reads the wanted column only and starts none of arrow's threads before a fork.
    return pq.ParquetFile(path, pre_buffer=False)


def _image_column(path: Path, file: pq.ParquetFile, columns: Columns) -> tuple[str, int]:
    """Name and number of the leaf column with the encoded images; also checks the label column's type."""
    schema = file.schema_arrow
    types = {name: schema.field(name).type for name in set(schema.names)}
    image, label = types.get(columns.image), types.get(columns.label)
    leaf = columns.image
    if image is not None and arrow.types.is_struct(image):
        position = image.get_field_index("bytes")
        leaf, image = f"{columns.image}.bytes", image.field(position).type if position >= 0 else None
    binary = image is not None and (arrow.types.is_binary(image) or arrow.types.is_large_binary(image))
    if not binary or label is None or not arrow.types.is_integer(label):
        raise InputError(
            f"{path}: needs a column {columns.image} (bytes, or a struct of bytes and path) and an integer column"
            f" {columns.label}, but has {', '.join(f'{name} ({kind})' for name, kind in sorted(types.items()))}; choose"
            " others with --image-column and --label-column"
        )
    leaves = [file.schema.column(k).path for k in range(len(file.schema))]
    return leaf, leaves.index(leaf)


def _check_groups(path: Path, metadata: Any, column: int) -> None:
    for number in range(metadata.num_row_groups):
        size = metadata.row_group(number).column(column).total_uncompressed_size
        if not 0 <= size <= _MAX_GROUP_BYTES:
            raise InputError(
                f"{path}: row group {number} unpacks to {size} bytes, more than {_MAX_GROUP_BYTES >> 30} GiB; write it"
                " with smaller row groups"
            )


def _class_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...]:
    """Names of the ClassLabel in Hugging Face's metadata; empty if it has none."""
    try:
        facts = decode_json(metadata.get(b"huggingface", b"{}"))
        names = facts.get("info", facts)["features"][label]["names"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return ()
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else ()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
