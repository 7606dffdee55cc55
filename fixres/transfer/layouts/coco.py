"""COCO's layout of boxes: one JSON file for each split, with images, categories and annotations."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError
from fixres.transfer.layouts.annotations import BoxedData, NamedBox, NamedImage, boxed_data, image_in

_SPLITS = {"train": ("train",), "test": ("val", "valid", "test")}
_MAX_SIDE = 1 << 20
_FAR = 1e9  # pixels; larger numbers may not fit into a float


class _Split(NamedTuple):
    """The annotation file of a split, and the folder of its images."""

    file: Path
    images: Path


def coco_files(folder: Path) -> dict[str, _Split]:
    """The files of the splits "train" and "test" that exist.

    COCO's own are annotations/instances_train2017.json with images in train2017/ or images/train2017/; other programs
    write train/_annotations.coco.json beside the images.
    """
    found = {}
    for split, words in _SPLITS.items():
        for word in words:
            own = sorted(folder.glob(f"annotations/instances_{word}*.json"))
            if len(own) > 1:
                raise InputError(f"{own[0]} and {own[1].name} are both of the {split} split; move one elsewhere")
            if own:
                name = own[0].stem.removeprefix("instances_")
                inside = folder / "images" / name
                found[split] = _Split(own[0], inside if inside.is_dir() else folder / name)
            elif (beside := folder / word / "_annotations.coco.json").is_file():
                found[split] = _Split(beside, folder / word)
            if split in found:
                break
    return found


def read_coco(folder: Path, classes: Sequence[str] = (), on_bad: str = "stop") -> BoxedData:
    """Training and test images in COCO's layout. Crowds (iscrowd) are ignored, as VOC's difficult objects are.

    Classes are the categories of the training file in the order of their numbers, unless they are given.

    Raises:
        InputError: a file that is missing or not COCO's, a bad box; see `boxed_data`.
    """
    files = coco_files(folder)
    for split in _SPLITS:
        if split not in files:
            raise InputError(f"{folder}: no annotations of the {split} split; docs/transfer.md shows the layouts")
    train, test = (_Annotations(files[split]) for split in ("train", "test"))
    return boxed_data(train.images(), test.images(), tuple(classes) or train.classes, on_bad)


class _Annotations:
    """The content of one file. Errors name the entry by its number in the file's list."""

    def __init__(self, split: _Split) -> None:
        self._file, self._folder = split
        try:
            content = decode_json(self._file.read_bytes())
        except ValueError as error:
            raise InputError(f"{self._file}: not JSON ({str(error)[:200]}); restore it") from error
        lists = ("images", "categories", "annotations")
        if not isinstance(content, dict) or not all(isinstance(content.get(name), list) for name in lists):
            raise InputError(f"{self._file}: no lists images, categories and annotations; not a file of COCO boxes")
        self._content = content
        self._names: dict[int, str] = {}
        known: set[int | str] = set()
        for k, one in enumerate(content["categories"]):
            number, name = (
                self._get(one, "id", int, f"categories[{k}]"),
                self._get(one, "name", str, f"categories[{k}]"),
            )
            if known & {number, name}:
                raise InputError(f"{self._file}: categories[{k}] has the id or the name of an earlier one; correct it")
            self._names[number] = name
            known |= {number, name}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the categories in the order of their numbers."""
        return tuple(self._names[number] for number in sorted(self._names))

    def images(self) -> list[NamedImage]:
        """The images with their boxes, in the file's order."""
        objects, known = defaultdict(list), set()
        for k, one in enumerate(self._content["annotations"]):
            objects[self._get(one, "image_id", int, f"annotations[{k}]")].append(self._object(one, f"annotations[{k}]"))
        found = []
        for k, one in enumerate(self._content["images"]):
            number, place = self._get(one, "id", int, f"images[{k}]"), f"{self._file}: images[{k}]"
            height, width = (self._get(one, side, int, f"images[{k}]") for side in ("height", "width"))
            if not (1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE):
                raise InputError(f"{place}: an image of {width} x {height} pixels; correct its size")
            path = image_in(self._folder, self._get(one, "file_name", str, f"images[{k}]"), place)
            if number in known:
                raise InputError(f"{place} has the id of an earlier image, {number}; correct it")
            found.append(NamedImage(path, f"{self._file}: image {path.name}", height, width, objects[number]))
            known.add(number)
        if missing := objects.keys() - known:
            raise InputError(
                f"{self._file}: boxes of image {min(missing)}, which is not in the list images; correct it"
            )
        return found

    def _object(self, one: dict[str, Any], place: str) -> NamedBox:
        box = self._get(one, "bbox", list, place)
        if len(box) != 4 or not all(type(value) in (int, float) and abs(value) < _FAR for value in box):
            raise InputError(f"{self._file}: {place}.bbox is not [x, y, width, height] in pixels; correct it")
        x, y, width, height = box
        number = self._get(one, "category_id", int, place)
        if number not in self._names:
            known = ", ".join(map(str, sorted(self._names)[:8])) or "none"
            raise InputError(f"{self._file}: {place} is of an unknown class, category_id={number}; there are {known}")
        if (crowd := one.get("iscrowd")) not in (0, 1, None):
            raise InputError(f"{self._file}: {place}.iscrowd is {crowd!r:.20}, not 0 or 1; correct it")
        return NamedBox(self._names[number], (x, y, x + width, y + height), bool(crowd))

    def _get(self, one: Any, key: str, kind: type, place: str) -> Any:
        value = one.get(key) if isinstance(one, dict) else None
        if type(value) is not kind:
            shown = re.sub(r"\s+", " ", repr(value))[:60]
            words = {int: "a whole number", str: "text", list: "a list"}[kind]
            raise InputError(f"{self._file}: {place}.{key} is {shown}, not {words}; correct it")
        return value
