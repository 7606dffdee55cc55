"""Images with boxes: what all layouts become, and the checks that all have in common."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from fixres.pipelines.spec import InputError

_TOLERANCE = 1.0  # pixels outside of the image: some programs count pixels from 0, others from 1
_MIN_SIDE = 0.01  # pixels; a thinner box could lose its area by rounding when its image is flipped or resized
_NUM_SHOWN = 8


class NamedBox(NamedTuple):
    """A box of an annotation file.

    Attributes:
        name: of its class.
        box: left, top, right, bottom: edges in pixels, from 0 at the image's upper left corner.
        ignored: whether it counts neither as object nor as background: VOC's difficult, COCO's crowds.
    """

    name: str
    box: tuple[float, float, float, float]
    ignored: bool


class NamedImage(NamedTuple):
    """An image with the names of its objects, as a layout's reader returns it.

    Attributes:
        path: of the image.
        place: of the annotation, for messages.
        height: of the image in pixels.
        width: of the image in pixels.
        objects: its boxes.
    """

    path: Path
    place: str
    height: int
    width: int
    objects: list[NamedBox]


class BoxedImage(NamedTuple):
    """An image with its boxes.

    Attributes:
        path: of the image.
        height: in pixels, as annotated.
        width: in pixels.
        boxes: float32 (N, 4), see NamedBox.
        labels: int64 (N,), in [0, number of classes).
        ignored: bool (N,), see NamedBox.
    """

    path: Path
    height: int
    width: int
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray


class BoxedData(NamedTuple):
    """Training and test images, and the class names in label order; `num_bad` boxes were left out."""

    classes: tuple[str, ...]
    train: list[BoxedImage]
    test: list[BoxedImage]
    num_bad: int = 0


def boxed_data(
    train: Sequence[NamedImage], test: Sequence[NamedImage], classes: Sequence[str], on_bad: str = "stop"
) -> BoxedData:
    """Checks all boxes and replaces names by labels.

    Args:
        train: training images.
        test: test images.
        classes: names in label order; those of the training boxes, sorted, if empty.
        on_bad: "stop", or "skip" to leave out bad boxes.

    Raises:
        InputError: no images or objects, or an image that is listed twice; with "stop" also a box outside of its image,
            without area, or of an unknown class.
    """
    if not train or not test:
        raise InputError(f"{len(train)} training and {len(test)} test images; a detector needs both")
    classes = tuple(classes) or tuple(sorted({one.name for image in train for one in image.objects}))
    check_distinct([image.path for image in (*train, *test)])
    numbers = {name: label for label, name in enumerate(classes)}
    splits = []
    for words, images in (("training", train), ("test", test)):
        boxed = [_boxed(image, numbers, on_bad) for image in images]
        if all(one.ignored.all() for one in boxed):
            raise InputError(
                f"{images[0].place}: no object that counts in this or any other of the {len(images)} {words} images; "
                "annotate some, or list others"
            )
        splits.append(boxed)
    num_bad = sum(len(image.objects) for image in (*train, *test)) - sum(len(one.labels) for one in chain(*splits))
    return BoxedData(classes, *splits, num_bad)


def _boxed(image: NamedImage, numbers: dict[str, int], on_bad: str) -> BoxedImage:
    good = []
    for one in image.objects:
        fault = _fault(one, image, numbers)
        if fault and on_bad == "stop":
            raise InputError(f"{image.place}: {fault}; correct it, or leave it out with --data.on-bad skip")
        if not fault:
            good.append(one)
    boxes = np.array([one.box for one in good], np.float32).reshape(-1, 4)
    limits = np.array([image.width, image.height] * 2, np.float32)
    return BoxedImage(image.path, image.height, image.width, boxes.clip(0, limits),
                      np.array([numbers[one.name] for one in good], np.int64),
                      np.array([one.ignored for one in good], bool))  # fmt: skip


def _fault(one: NamedBox, image: NamedImage, classes: dict[str, int]) -> str:
    """What is wrong with a box, in words; empty if nothing is."""
    left, top, right, bottom = one.box
    shown = f"the box ({left:g}, {top:g}, {right:g}, {bottom:g}) of {one.name[:80]!r}"
    if not all(map(math.isfinite, one.box)):
        return f"{shown} is not finite"
    if min(right - left, bottom - top) < _MIN_SIDE:
        return f"{shown} has no area"
    low, high = min(left, top), max(right - image.width, bottom - image.height)
    inside = min(min(right, image.width) - max(left, 0), min(bottom, image.height) - max(top, 0))
    if low < -_TOLERANCE or high > _TOLERANCE or inside < _MIN_SIDE:
        return f"{shown} is outside of the image, which has {image.width} x {image.height} pixels"
    if one.name not in classes:
        known = ", ".join(list(classes)[:_NUM_SHOWN]) + (", ..." if len(classes) > _NUM_SHOWN else "")
        return f"{shown} is of an unknown class; the classes are {known} (--data.classes names others)"
    return ""


def image_in(folder: Path, name: str, place: str) -> Path:
    """The image file `name` in `folder`.

    Raises:
        InputError: there is none, or the name leads out of the folder.
    """
    parts = PurePosixPath(name).parts
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\0" in name:
        raise InputError(f"{place}: the file name {name[:80]!r} leads out of {folder}; correct it")
    if not (path := folder / name).is_file():
        raise InputError(f"{place}: the image {path} does not exist; restore it, or remove it from the list")
    return path


def read_list(path: Path) -> list[str]:
    """The names in a list of images, one in each line; they may contain spaces.

    Raises:
        InputError: no such file, not text, or a name that is a path.
    """
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; docs/transfer.md shows the layouts") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a list of image names, one in each line") from None
    for name in names:
        if "/" in name or "\0" in name or name in (".", ".."):
            raise InputError(f"{path}: {name[:80]!r} is not the name of an image; correct the line")
    return names


def check_distinct(paths: Sequence[Path], what: str = "image") -> None:
    """Raises InputError if a path is there twice: an image would count twice, or be tested that was trained on."""
    for path, num in Counter(paths).items():
        if num > 1:
            raise InputError(f"{path}: {num} samples have this {what}, in one split or in both; leave one of them")


def first_existing(paths: Iterable[Path]) -> Path | None:
    """The first of the paths that exists."""
    return next((path for path in paths if path.exists()), None)
