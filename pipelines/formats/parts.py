"""Data sets in parts: their names, and whether they are complete."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fixres.pipelines.spec import InputError

_DIFFERENCES = {
    "source": "another source",
    "source_samples": "another source",
    "file_sizes": "other sizes of the source's files, some of which were replaced,",
    "options": "other options",
    "count": "another count",
}
_MAX_COUNT = 99_999
_NAME = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})(\.[A-Za-z]+)?")


@dataclass(frozen=True)
class Part:
    """One of `count` contiguous parts of a data set, in the order of writing."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.count <= _MAX_COUNT:
            raise InputError(f"part {self.number}/{self.count}: the number of parts must be from 1 to {_MAX_COUNT}")
        if not 0 <= self.number < self.count:
            raise InputError(
                f"part {self.number}/{self.count} does not exist; the first of {self.count} parts is 0/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Part:
        """Parses "3/8": the fourth of eight."""
        match = re.fullmatch("([0-9]{1,5})/([0-9]{1,5})", text)
        if match is None:
            raise InputError(f"shard {text!r} is not of the form i/n, for example 0/8")
        return cls(int(match[1]), int(match[2]))

    def span(self, num_samples: int) -> slice:
        """Which of `num_samples` samples are in this part."""
        return slice(num_samples * self.number // self.count, num_samples * (self.number + 1) // self.count)

    def place(self, dest: Path) -> Path:
        """`dest` if there is one part, else for example train-00003-of-00008.beton for train.beton."""
        if self.count == 1:
            return dest
        return dest.with_name(f"{dest.stem}-{self.number:05d}-of-{self.count:05d}{dest.suffix}")

    def describe(self) -> dict[str, Any]:
        """The part as JSON."""
        return {"number": self.number, "count": self.count}


def part_of_name(path: Path) -> tuple[str, Part] | None:
    """The name of the whole and the part that a file or folder is; None if it is not named like a part."""
    match = _NAME.fullmatch(path.name)
    if match is None or not int(match[2]) < int(match[3]):
        return None
    return match[1] + (match[4] or ""), Part(int(match[2]), int(match[3]))


def check_alike(files: Sequence[Path], abouts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Compares what parts store about their conversion.

    Args:
        files: the parts.
        abouts: what each stores about itself.

    Returns:
        The entry of the first part; empty if the parts store none.

    Raises:
        InputError: an entry is damaged, of another part than the file is named, or of another conversion.
    """
    stored = [_stored(file, about) for file, about in zip(files, abouts, strict=True)]
    for file, part in zip(files, stored, strict=True):
        different = [name for name in stored[0] | part if part.get(name) != stored[0].get(name) and name != "number"]
        if different:
            what = _DIFFERENCES.get(different[0], "other settings")
            raise InputError(f"{file} was made with {what} than {files[0]}; convert it again")
    return stored[0]


def _stored(file: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    part, named = about.get("part", {}), part_of_name(file)
    if not isinstance(part, dict) or (part and type(part.get("source_samples")) is not int):
        raise InputError(f"{file}: what it stores about its part is damaged; convert it again with --shard i/n")
    if part and named and named[1].describe() != {key: part.get(key) for key in ("number", "count")}:
        raise InputError(f"{file} is part {part.get('number')} of {part.get('count')}; give it its name again")
    return part


def check_complete(paths: list[Path]) -> list[Path]:
    """The parts of one data set in order; raises InputError if one is missing or belongs to another data set."""
    found: dict[int, Path] = {}
    first: tuple[str, Part] | None = None
    for path in sorted(paths):
        known = part_of_name(path)
        if known is None:
            raise InputError(
                f"{path} is not named like a part (train-00003-of-00008.beton); rename it or give it alone"
            )
        first = first or known
        if (known[0], known[1].count) != (first[0], first[1].count):
            raise InputError(
                f"{path} is not one of the {first[1].count} parts of {first[0]}; move one of them elsewhere"
            )
        found[known[1].number] = path
    if first is None:
        raise InputError("no parts given; give the paths of all parts")
    missing = [number for number in range(first[1].count) if number not in found]
    if missing:
        raise InputError(
            f"{first[0]}: part {missing[0]} of {first[1].count} is missing ({len(missing)} are); convert it with "
            f"--shard {missing[0]}/{first[1].count}"
        )
    return [found[number] for number in range(first[1].count)]
