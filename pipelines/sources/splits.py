"""Train, validation and test splits, recognized by words in the names of folders and shards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fixres.pipelines.spec import InputError

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test",
    "testing": "test",
}  # fmt: skip


def split_of(name: str) -> str | None:
    """The split in a file's name, such as "val" for validation-00000-of-00014.parquet; None if it has none or two."""
    found = {SPLIT_WORDS[word] for word in re.split("[^a-z]+", name.lower()) if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def select_shards(path: Path, files: Sequence[Path], split: str | None) -> list[Path]:
    """The shards of one split, sorted. If their names contain the total, all must exist.

    Args:
        path: the folder, or the only file.
        files: all shards in it, at least one.
        split: one of SPLITS, or None if all names have the same split or none.
    """
    by_split: dict[str | None, list[Path]] = {}
    for file in sorted(files):
        by_split.setdefault(split_of(file.name), []).append(file)
    there = ", ".join(sorted(str(name) for name in by_split if name)) or "no split in their names"
    if split is None and len(by_split) > 1:
        raise InputError(f"{path} holds shards of several splits ({there}); choose one with --split of fixres convert")
    if split is not None and split not in by_split:
        raise InputError(f"{path} has no shards of the split {split!r}, only {there}; choose another or omit --split")
    chosen = by_split[split] if split is not None else next(iter(by_split.values()))
    if path.is_dir():
        _check_numbers(path, chosen)
    return chosen


def _check_numbers(path: Path, shards: Sequence[Path]) -> None:
    """Checks that no shard is missing, if their names are like train-00003-of-00294."""
    found = [re.search("([0-9]{5,})-of-([0-9]{5,})", shard.name) for shard in shards]
    numbers = {int(match[1]) for match in found if match}
    totals = {int(match[2]) for match in found if match}
    if not numbers:
        return
    if len(totals) > 1 or None in found:
        raise InputError(f"{path} mixes shards of several sets, such as {shards[0].name} and {shards[-1].name}")
    total = totals.pop()
    missing = next((number for number in range(min(total, len(shards) + 1)) if number not in numbers), None)
    if missing is not None or len(shards) != total:
        number = total if missing is None else missing
        raise InputError(
            f"{path} holds {len(shards)} of {total} shards, number {number:05d} is missing or exists twice; download it"
        )
