"""Layouts of images with masks: ADE20K's, Pascal VOC's, and folders of images and masks.

A mask is a picture with a number in each pixel: gray levels, or the palette's numbers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fixres.pipelines.spec import InputError
from fixres.transfer.layouts.annotations import check_distinct, read_list
from fixres.transfer.layouts.voc import voc_folders, voc_image

IGNORED = 255
"""Label of pixels that count neither in training nor in testing."""
VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable",
    "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
_ADE_CLASSES = 150
_IMAGES = {".jpg", ".jpeg", ".png"}
_SPLITS = {"train": ("train", "training"), "test": ("val", "validation", "test")}


class MaskedImage(NamedTuple):
    """Files of an image and of its mask."""

    path: Path
    mask: Path


class MaskData(NamedTuple):
    """Training and test images, and the class names in label order.

    Attributes:
        first: number in the masks of the first class. With 1, number 0 is ignored, as in ADE20K.
    """

    classes: tuple[str, ...]
    train: list[MaskedImage]
    test: list[MaskedImage]
    first: int = 0


def read_masks(folder: Path, classes: Sequence[str] = ()) -> MaskData:
    """Images and masks in any of the layouts.

    ADE20K: images/training, annotations/training; masks have 0 for ignored pixels and 1 to 150.
    VOC: JPEGImages, SegmentationClass, ImageSets/Segmentation; 0 is the background.
    Folders: images/train, masks/train; numbers from 0. In the last two 255 is ignored.

    Args:
        folder: of the data.
        classes: names in label order; those in FOLDER/classes.txt, or the layout's own, if empty.

    Raises:
        InputError: none of the layouts, or an image without a mask.
    """
    listed = folder / "classes.txt"
    classes = tuple(classes) or (_listed_classes(listed) if listed.is_file() else ())
    if years := voc_folders(folder, "SegmentationClass"):
        train, test = (_listed(years, split) for split in ("train", "val"))
        found = MaskData(classes or VOC_CLASSES, train, test)
    elif (folder / "annotations" / "training").is_dir():
        train, test = (_paired(folder / "images", folder / "annotations", split) for split in ("train", "test"))
        found = MaskData(classes or _ade_classes(folder), train, test, first=1)
    elif (folder / "masks").is_dir():
        train, test = (_paired(folder / "images", folder / "masks", split) for split in ("train", "test"))
        if not classes:
            raise InputError(f"{folder}: the names of the classes are unknown; write classes.txt, one name a line")
        found = MaskData(classes, train, test)
    else:
        raise InputError(f"{folder}: no masks in a known layout; docs/transfer.md shows the layouts")
    if not found.train or not found.test or len(found.classes) + found.first > IGNORED:
        raise InputError(
            f"{folder}: {len(found.train)} training and {len(found.test)} test images, {len(found.classes)} classes; "
            f"both splits need images, and masks hold {IGNORED - found.first} classes at most"
        )
    check_distinct([one.mask for one in (*found.train, *found.test)], "mask")
    return found


def _listed_classes(path: Path) -> tuple[str, ...]:
    names = _lines(path)
    for name, num in Counter(names).items():
        if num > 1:
            raise InputError(f"{path}: the name {name[:80]!r} is there {num} times; give each class its own")
    return tuple(names)


def _listed(years: Sequence[Path], split: str) -> list[MaskedImage]:
    found = []
    for year in years:
        listed = year / "ImageSets" / "Segmentation" / f"{split}.txt"
        for name in read_list(listed):
            path = voc_image(year, name, str(listed))
            found.append(MaskedImage(path, _mask(year / "SegmentationClass" / f"{name}.png", path)))
    return found


def _paired(images: Path, masks: Path, split: str) -> list[MaskedImage]:
    words = _SPLITS[split]
    inside = next((word for word in words if (images / word).is_dir()), None)
    if inside is None:
        raise InputError(f"{images}: no folder {words[0]} in it; docs/transfer.md shows the layouts")
    paths = sorted(path for path in (images / inside).iterdir() if path.is_file() and not path.name.startswith("."))
    if others := [path for path in paths if path.suffix.lower() not in _IMAGES]:
        raise InputError(f"{others[0]}: images end in {', '.join(sorted(_IMAGES))}; convert it, or move it elsewhere")
    return [MaskedImage(path, _mask(masks / inside / f"{path.stem}.png", path)) for path in paths]


def _mask(path: Path, image: Path) -> Path:
    if not path.is_file():
        raise InputError(f"{image}: its mask {path} does not exist; restore it, or remove the image")
    return path


def _ade_classes(folder: Path) -> tuple[str, ...]:
    """The 150 names in ADE20K's objectInfo150.txt (a table whose last column has them), or their numbers."""
    table = folder / "objectInfo150.txt"
    if not table.is_file():
        return tuple(f"class {number}" for number in range(1, _ADE_CLASSES + 1))
    names = [line.split("\t")[-1].strip() for line in _lines(table)[1:]]
    if len(names) != _ADE_CLASSES:
        raise InputError(f"{table}: {len(names)} classes after its heading; ADE20K has {_ADE_CLASSES}; restore it")
    return tuple(names)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise InputError(f"{path}: not text; write one class name a line") from None
