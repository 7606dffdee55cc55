"""Labels of val images in a text file: a list, pairs, or Kaggle's table."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pipelines.spec import InputError

KAGGLE_COLUMNS = ("ImageId", "PredictionString")
_MAX_BYTES = 64 << 20  # Kaggle's table has 2.5 MB
IMAGE_ENDINGS = (".jpeg", ".jpg", ".png")


class LabelFile(NamedTuple):
    """The labels in a file.

    Attributes:
        path: the file.
        by_name: label of each image by its name without ending; empty if the file is a list.
        in_order: labels in the order of the sorted image names; empty if the file names the images.
    """

    path: Path
    by_name: Mapping[str, str]
    in_order: Sequence[str]


def read_labels(path: Path) -> LabelFile:
    """Reads a file of labels.

    The file has one of three forms: one label a line, in the order of the images' names; pairs such as
    `ILSVRC2012_val_00000001.JPEG n01751748`; or Kaggle's LOC_val_solution.csv, where a prediction's first word is the
    label.
    """
    lines = _lines(path)
    if tuple(lines[0].split(",")) == KAGGLE_COLUMNS:
        return _by_name(path, _kaggle_pairs(path, lines))
    words = [line.split() for line in lines]
    width = len(words[0])
    for number, line in enumerate(words, start=1):
        if len(line) != width or width > 2:
            raise InputError(
                f"{path}: line {number} has {len(line)} words; each needs a synset, or an image's name and its synset"
            )
    if width == 1:
        return LabelFile(path, {}, [line[0] for line in words])
    return _by_name(path, [(name, label) for name, label in words])


def labels_for(stems: Sequence[str], file: LabelFile, place: Path) -> list[str]:
    """The label of each image. Every image must have a label, and every label an image.

    Args:
        stems: names of the images without endings, distinct.
        file: the labels.
        place: the images' path, for errors.
    """
    if file.in_order:
        if len(file.in_order) != len(stems):
            raise InputError(f"{file.path} has {len(file.in_order)} labels, but {place} holds {len(stems)} images")
        in_order = dict(zip(sorted(stems), file.in_order, strict=True))
        return [in_order[stem] for stem in stems]
    for stem in stems:
        if stem not in file.by_name:
            raise InputError(f"{file.path} has no label of {stem}, which is in {place}; complete the file")
    if len(file.by_name) != len(stems):
        missing = min(set(file.by_name) - set(stems))
        raise InputError(
            f"{file.path} labels {len(file.by_name)} images, but {place} holds {len(stems)}; {missing} is missing there"
        )
    return [file.by_name[stem] for stem in stems]


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path} is not a file; give one with the labels of the val images")
    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise InputError(f"{path} is longer than {_MAX_BYTES >> 20} MiB; this is not a list of labels")
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; give a list of labels") from None
    lines = [line for line in lines if line]
    if not lines:
        raise InputError(f"{path} is empty; it needs a label for each image")
    return lines


def _kaggle_pairs(path: Path, lines: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for number, row in enumerate(csv.reader(lines[1:]), start=2):
        words = row[1].split() if len(row) == len(KAGGLE_COLUMNS) else []
        if not words:
            raise InputError(f"{path}: line {number} has no label; download the file again")
        pairs.append((row[0], words[0]))
    return pairs


def _by_name(path: Path, pairs: Sequence[tuple[str, str]]) -> LabelFile:
    by_name: dict[str, str] = {}
    for name, label in pairs:
        stem = _stem(name)
        if by_name.setdefault(stem, label) != label:
            raise InputError(f"{path} gives {name} the labels {by_name[stem]} and {label}; remove one")
    return LabelFile(path, by_name, ())


def _stem(name: str) -> str:
    ending = next((ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)].rpartition("/")[2]
