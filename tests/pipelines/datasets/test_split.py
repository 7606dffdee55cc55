"""The generated split: stratified, deterministic, and never silently changed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from fixres.pipelines.datasets import split as split_module
from fixres.pipelines.datasets.resolve import resolve_data
from fixres.pipelines.datasets.split import SPLIT_RECORD, VAL_SHARE, split_folder
from fixres.pipelines.spec import InputError
from tests.pipelines.datasets.folders import listing, photos


def test_split_is_stratified_complete_and_recorded(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 10, "bee": 2, "cow": 31})
    before = listing(root)
    found = resolve_data(str(root), tmp_path / "work", seed=3)
    assert listing(root) == before
    sides = {split: ImageFolder(getattr(found, split)) for split in ("train", "val")}
    assert all(tuple(side.classes) == found.classes == ("ant", "bee", "cow") for side in sides.values())
    assert np.bincount(sides["val"].targets).tolist() == [2, 1, 6]
    real = {split: {os.path.realpath(path) for path, _ in side.samples} for split, side in sides.items()}
    assert not real["train"] & real["val"]
    assert real["train"] | real["val"] == {str(p) for p in root.resolve().rglob("*.jpg")}
    record = json.loads((found.train.parent / SPLIT_RECORD).read_text())
    for split in ("train", "val"):
        assert {str(root.resolve() / file) for file in record[split]} == real[split]


def sides_of(folder: Path) -> tuple[list[str], list[str]]:
    record = json.loads((folder / SPLIT_RECORD).read_text())
    return record["train"], record["val"]


def test_split_depends_on_the_seed_only_and_is_reused(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 20, "bee": 20})
    first = split_folder(root, tmp_path / "work", 0)
    made = listing(first)
    assert split_folder(root, tmp_path / "work", 0) == first
    assert listing(first) == made
    assert sides_of(split_folder(root, tmp_path / "elsewhere", 0)) == sides_of(first)
    assert sides_of(split_folder(root, tmp_path / "work", 1)) != sides_of(first)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    assert sides_of(split_folder(moved, tmp_path / "work", 0)) == sides_of(first)


def test_pinned_split(tmp_path: Path) -> None:
    """If these literals change, every user's test set changes silently: the change log must say so."""
    folder = split_folder(photos(tmp_path / "data", {"ant": 10, "bee": 5}), tmp_path / "work", 0)
    assert sides_of(folder)[1] == ["ant/001.jpg", "ant/006.jpg", "bee/003.jpg"]


def test_a_changed_source_is_not_silently_split_again(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 5, "bee": 5})
    folder = split_folder(root, tmp_path / "work", 0)
    shutil.copy(root / "ant" / "000.jpg", root / "ant" / "new.jpg")
    with pytest.raises(InputError, match=r"has changed .*ant/new\.jpg.*remove"):
        split_folder(root, tmp_path / "work", 0)
    (root / "ant" / "new.jpg").unlink()
    (folder / SPLIT_RECORD).write_text("{")
    with pytest.raises(InputError, match=r"no readable split\.json"):
        split_folder(root, tmp_path / "work", 0)


def test_single_image_cannot_be_split(tmp_path: Path) -> None:
    root = photos(tmp_path / "data", {"ant": 5, "bee": 1})
    with pytest.raises(InputError, match=r"class bee .* single image"):
        resolve_data(str(root), tmp_path / "work")
    assert not (tmp_path / "work").exists()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(2, 40), min_size=1, max_size=8), st.integers(0, 2**63 - 1))
def test_each_class_keeps_its_share(counts: list[int], seed: int) -> None:
    class Source:
        path = Path("data")
        classes = tuple(f"c{k}" for k in range(len(counts)))
        labels = np.repeat(np.arange(len(counts)), counts)

        def __len__(self) -> int:
            return len(self.labels)

    val = split_module._stratified(Source(), seed)
    for label, count in enumerate(counts):
        held_out = val[Source.labels == label].sum()
        assert 1 <= held_out < count
        assert abs(held_out - VAL_SHARE * count) <= 1
