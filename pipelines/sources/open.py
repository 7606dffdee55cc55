"""Opens stored images of any kind."""

from __future__ import annotations

import shlex
from pathlib import Path

from fixres.pipelines.formats.beton_parts import BetonParts
from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.parts import part_of_name
from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.sources.folder import FilesSource, FolderSource, PicturesSource
from fixres.pipelines.sources.imagenet.flat import FlatSource
from fixres.pipelines.sources.imagenet.ilsvrc import IlsvrcSource
from fixres.pipelines.sources.imagenet.imagenet_v2 import ImageNetV2Source, is_imagenet_v2
from fixres.pipelines.sources.imagenet.kaggle import KaggleSource
from fixres.pipelines.sources.kinds import KINDS, recognize
from fixres.pipelines.sources.layout import disk_splits
from fixres.pipelines.sources.relabel import RelabeledSource, read_class_list
from fixres.pipelines.sources.splits import SPLITS, select_shards
from fixres.pipelines.sources.tar_folder import TarFolderSource
from fixres.pipelines.sources.tree import DiskFolder, images_in
from fixres.pipelines.spec import InputError, Source

# Kinds whose splits may be subfolders train/ and val/.
_SPLIT_BY_FOLDER = ("folder", "flat", "imagenet_v2", "webdataset", "parquet")
_WITH_VAL_LABELS = ("ilsvrc", "flat", "kaggle")


def open_source(
    path: str | Path,
    kind: str = "auto",
    split: str | None = None,
    *,
    val_labels: str | Path | None = None,
    classes_from: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> Source:
    """Opens stored images of any kind without unpacking them.

    Args:
        path: a folder or file.
        kind: one of `KINDS`; "auto" recognizes it.
        split: "train", "val" or "test", for a path that holds several.
        val_labels: a file with the labels of val images (ilsvrc, flat, kaggle), see `val_labels.read_labels`.
        classes_from: gives the class list: another source (its train split, if it has splits), or a text file with one
            class a line.
        image_column: of parquet shards, "image" by default.
        label_column: of parquet shards, "label" by default.

    Raises:
        InputError: the path does not exist, looks like two kinds, lacks the split, or is damaged or incomplete.
    """
    path = _existing(path)
    if split is not None and split not in SPLITS:
        raise InputError(f"split={split!r} is unknown; choose {', '.join(SPLITS)}")
    wanted = split
    kind, path, split = _settle(path, kind, split)
    if val_labels is not None and kind not in _WITH_VAL_LABELS:
        raise InputError(f"{path} is {KINDS[kind]}, which bring their labels; omit --val-labels")
    if kind != "parquet" and (image_column or label_column):
        raise InputError(f"{path} is {KINDS[kind]}, which have no columns; omit --image-column and --label-column")
    if kind == "parquet":
        source = _open_parquet(path, split, image_column, label_column)
    else:
        source = _open(kind, path, split, val_labels)
    if isinstance(source, PicturesSource) and wanted is not None:
        raise InputError(f"{path} has no class folders; it needs a subfolder of images for each class")
    if classes_from is None:
        return source
    return RelabeledSource(source, class_list(classes_from), path, classes_from)


def open_stored(path: str | Path) -> Source:
    """Opens what engines read: a .beton file or its parts, shards, parquet, or class folders."""
    path = _existing(path)
    match kind := recognize(path):
        case "beton":
            return _open_beton(path, None)
        case "webdataset":
            return TarSource(path)
        case "folder" | "imagenet_v2":
            return open_folder(path)
        case "parquet":
            return _open_parquet(path, None, None, None)
    command = shlex.join(["fixres", "convert", str(path), "new.beton"])
    raise InputError(f"{path} is {KINDS[kind]}, which engines cannot read; convert it: {command}")


def open_folder(path: str | Path) -> FilesSource:
    """Opens class folders: their names are sorted as text, as in ImageFolder, but 0 to 999 are ImageNet-V2's."""
    path = Path(path)
    return ImageNetV2Source(path) if path.is_dir() and is_imagenet_v2(path) else FolderSource(path)


def class_list(path: str | Path) -> tuple[str, ...]:
    """The classes of a source, of its train split if it has splits, or of a text file with one class a line."""
    path = _existing(path)
    if path.is_file() and path.suffix not in (".beton", ".tar", ".parquet"):
        return read_class_list(path)
    try:
        return open_source(path).classes
    except InputError as error:
        try:
            return open_source(path, split="train").classes
        except InputError:
            raise error from None


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give an image folder, a .beton file or a folder of .tar shards")
    if not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is neither a file nor a folder; give an image folder, a .beton file or .tar shards")
    return path


def _settle(path: Path, kind: str, split: str | None) -> tuple[str, Path, str | None]:
    """Kind, path and split. If the split is a subfolder, the path becomes that folder and the split None."""
    if kind != "auto" and kind not in KINDS:
        raise InputError(f"kind={kind!r} is unknown; choose auto, {', '.join(KINDS)}")
    found = recognize(path) if kind == "auto" else kind
    inner = disk_splits(path).get(split) if split is not None else None
    if inner is None or found not in _SPLIT_BY_FOLDER:
        return found, path, split
    return recognize(inner) if kind == "auto" else kind, inner, None


def _open(kind: str, path: Path, split: str | None, val_labels: str | Path | None) -> Source:
    """The source of a recognized kind."""
    match kind:
        case "ilsvrc":
            return IlsvrcSource(path, split, val_labels)
        case "kaggle":
            return KaggleSource(path, split, val_labels)
        case "webdataset":
            shards = [file for file in sorted(path.glob("*.tar")) if file.is_file()]
            return TarSource(path, select_shards(path, shards, split) if shards else None)
        case "tar":
            return TarFolderSource(path, split)
        case "beton":
            return _open_beton(path, split)
    if kind == "flat" and split in (None, "val"):
        return FlatSource(path, val_labels)
    if split is not None:
        raise InputError(f"{path} has no {split}/ with class folders; give the folder of one split and omit --split")
    if kind == "imagenet_v2":
        return ImageNetV2Source(path)
    if path.is_dir() and images_in(folder := DiskFolder(path)) and not folder.folders():
        return PicturesSource(path)
    return FolderSource(path)


def _open_parquet(path: Path, split: str | None, image_column: str | None, label_column: str | None) -> Source:
    from fixres.pipelines.sources.parquet import USUAL_COLUMNS, Columns, ParquetSource  # imports pyarrow

    image, label = USUAL_COLUMNS
    return ParquetSource(path, split, Columns(image_column or image, label_column or label))


def _open_beton(path: Path, split: str | None) -> Source:
    if path.is_dir() and any(part_of_name(file) for file in path.glob("*.beton")):
        if split is not None:
            raise InputError(f"{path} holds the parts of one file, without splits; omit --split")
        return BetonParts(path)
    if path.is_dir():
        there = sorted(file.stem for file in path.glob("*.beton"))
        if split not in there:
            wanted = "choose one with --split" if split is None else f"{split}.beton does not exist, choose another"
            raise InputError(f"{path} holds the .beton files {', '.join(there) or 'none'}; {wanted}, or give the file")
        return BetonReader(path / f"{split}.beton")
    if split is not None:
        raise InputError(f"{path} is one file without splits; omit --split")
    return BetonReader(path)
