"""A source with another source's class list, so that train and val have the same labels.

A source numbers only the classes that occur in it. If val lacks a class of train, all later labels would differ by one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fixres.pipelines.imagenet_classes import class_names_of, has_names, human_names
from fixres.pipelines.spec import InputError, Source

_MAX_BYTES = 64 << 20


class RelabeledSource:
    """`source` with labels that are positions in `classes`.

    Attributes:
        source: the original source.
        path: of the source.
        classes: the given list.
        class_names: human-readable names of the classes.
        labels: int64 (N,).
        places: those of the source, or None.
    """

    def __init__(self, source: Source, classes: Sequence[str], path: Path | str, place: Path | str) -> None:
        """Maps the source's labels to the list, by name.

        If the source does not name its classes, its labels stay and get the list's names. Errors name the source's
        `path` and the `place` of the list, a file or source.
        """
        self.source, self.path, self.classes = source, Path(path), tuple(classes)
        self.places = getattr(source, "places", None)
        new = {name: number for number, name in enumerate(self.classes)}
        if len(new) < len(self.classes):
            twice = next(name for number, name in enumerate(self.classes) if new[name] != number)
            raise InputError(f"{place} lists class {twice} twice; remove one")
        used = [source.classes[label] for label in np.unique(source.labels).tolist()]
        if not has_names(source):
            _check_meaning(self.classes, path, place)
            new = {str(number): number for number in range(len(self.classes))}
        missing = [name for name in used if name not in new]
        if missing:
            raise InputError(
                f"class {missing[0]} of {path} is not among the {len(self.classes)} classes of"
                f" {place} ({len(missing)} classes are missing there); take the class list of the matching train split"
            )
        table = np.array([new.get(name, -1) for name in source.classes], np.int64)
        self.labels = table[source.labels]
        names = dict(zip(source.classes, class_names_of(source), strict=True))
        others = human_names(self.classes)
        self.class_names = tuple(names.get(name, other) for name, other in zip(self.classes, others, strict=True))

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> bytes:
        """The encoded image."""
        return self.source.read(index)

    def name(self, index: int) -> str:
        """The sample's name in the source."""
        return self.source.name(index)


def read_class_list(path: Path) -> tuple[str, ...]:
    """Classes from a text file, one a line; `n01440764 tench, Tinca tinca` gives the synset."""
    with open(path, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    try:
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        lines = []
    if len(data) > _MAX_BYTES or not any(lines):
        raise InputError(
            f"{path} is not UTF-8 text with one class a line; give such a file, a source, or a .beton file"
        )
    return tuple(re.sub(r"^(n[0-9]{8})\s.*", r"\1", line) for line in lines if line)


def _check_meaning(classes: Sequence[str], path: Path | str, place: Path | str) -> None:
    """Raises InputError if a class number of the source could be a position in the list as well as a name in it."""
    for number, name in enumerate(classes):
        if name.isdecimal() and name != str(number):
            raise InputError(
                f"{path} has class numbers without names, but in the list of {place} class number {number} is called"
                f" {name}; rename the classes of the list, because number {name} could mean either"
            )
