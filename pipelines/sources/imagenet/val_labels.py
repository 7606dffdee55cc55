"""Labels of val images in a text file: a list, pairs, or Kaggle's table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from fixres.pipelines.spec import InputError

KAGGLE_COLUMNS = ("ImageId", "PredictionString")
_MAX_BYTES = 64 << 20  # Kaggle's table has 2.5 MB
IMAGE_ENDINGS = (".jpeg", ".jpg", ".png")


def read_labels(path: Path, stems: Sequence[str], place: Path) -> list[str]:
    """The label of each image. Every image must have a label, and every label an image.

    The file has one of three forms: one label a line, in the order of the sorted names; pairs such as
    `ILSVRC2012_val_00000001.JPEG n01751748`; or Kaggle's LOC_val_solution.csv, where a prediction's first word is the
    label.

    Args:
        path: the file.
        stems: names of the images without endings, distinct.
        place: the images' path, for errors.
    """
    pairs = _pairs(path, _lines(path))
    if pairs and isinstance(pairs[0], str):
        if len(pairs) != len(stems):
            raise InputError(f"{path} has {len(pairs)} labels, but {place} holds {len(stems)} images")
        in_order = dict(zip(sorted(stems), pairs, strict=True))
        return [in_order[stem] for stem in stems]
    by_name = _by_name(path, pairs)
    for stem in stems:
        if stem not in by_name:
            raise InputError(f"{path} has no label of {stem}, which is in {place}; complete the file")
    if len(by_name) != len(stems):
        missing = min(set(by_name) - set(stems))
        raise InputError(
            f"{path} labels {len(by_name)} images, but {place} holds {len(stems)}; {missing} is missing there"
        )
    return [by_name[stem] for stem in stems]


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


def _pairs(path: Path, lines: Sequence[str]) -> list[tuple[str, str]] | list[str]:
    """Names with labels, or the labels alone if the file is a list."""
    if tuple(lines[0].split(",")) == KAGGLE_COLUMNS:
        return _kaggle_pairs(path, lines)
    words = [line.split() for line in lines]
    width = len(words[0])
    for number, line in enumerate(words, start=1):
        if len(line) != width or width > 2:
            raise InputError(
                f"{path}: line {number} has {len(line)} words; each needs a synset, or an image's name and its synset"
            )
    return [line[0] for line in words] if width == 1 else [(name, label) for name, label in words]


def _kaggle_pairs(path: Path, lines: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for number, row in enumerate(csv.reader(lines[1:]), start=2):
        words = row[1].split() if len(row) == len(KAGGLE_COLUMNS) else []
        if not words:
            raise InputError(f"{path}: line {number} has no label; download the file again")
        pairs.append((row[0], words[0]))
    return pairs


def _by_name(path: Path, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Labels by name without folder and ending."""
    by_name: dict[str, str] = {}
    for name, label in pairs:
        ending = next((ending for ending in IMAGE_ENDINGS if name.lower().endswith(ending)), "")
        stem = name[: len(name) - len(ending)].rpartition("/")[2]
        if by_name.setdefault(stem, label) != label:
            raise InputError(f"{path} gives {name} the labels {by_name[stem]} and {label}; remove one")
    return by_name
