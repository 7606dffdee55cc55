"""Class lists: a val split that lacks a class must not shift labels, and synsets have the known names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models._meta import _IMAGENET_CATEGORIES

from fixres.pipelines import imagenet_classes as synsets
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.imagenet_classes import class_names_of, human_names, imagenet_synsets, is_synset
from fixres.pipelines.sources import class_list, open_source
from fixres.pipelines.sources.relabel import RelabeledSource
from fixres.pipelines.spec import InputError, Source
from tests.pipelines.sources import miniatures as mini
from tests.pipelines.sources.miniatures import NUMBERS, SYNSETS, Photos, contents, expected


@pytest.fixture
def short_val(val: Photos) -> Photos:
    """The val images without those of the first and of a middle synset."""
    return {key: data for key, data in val.items() if key[0] not in (SYNSETS[0], SYNSETS[6])}


@pytest.mark.parametrize("form", ["folder", "root", "beton", "text", "mapping", "ilsvrc"])
def test_labels_are_positions_in_the_train_list(
    form: str, train: Photos, val: Photos, short_val: Photos, tmp_path: Path
) -> None:
    root = tmp_path / "x"
    mini.write_folder(root / "train", train)
    mini.write_folder(root / "val", short_val)
    place = {"folder": root / "train", "root": root}.get(form, tmp_path / form)
    if form == "beton":
        place = place.with_suffix(".beton")
        convert(root / "train", place, ConversionConfig("ffcv", num_workers=0, progress=False))
    elif form == "ilsvrc":
        mini.write_ilsvrc(place, train, val)
    elif form in ("text", "mapping"):
        place.write_text("".join(f"{synset}{' its, name' * (form == 'mapping')}\r\n" for synset in SYNSETS))
    plain, source = open_source(root, split="val"), open_source(root, split="val", classes_from=place)
    assert isinstance(source, Source)
    assert contents(source) == contents(plain) == expected(short_val)
    assert source.classes == SYNSETS and len(plain.classes) == 10
    assert source.labels.tolist() == [SYNSETS.index(synset) for synset, _ in expected(short_val)]
    assert plain.labels.tolist() != source.labels.tolist()
    assert source.class_names[7] == "crane" and source.name(3) == plain.name(3)


def test_a_class_that_is_not_in_the_list_is_reported(train: Photos, short_val: Photos, tmp_path: Path) -> None:
    mini.write_folder(tmp_path / "train", train)
    mini.write_folder(tmp_path / "val", short_val)
    with pytest.raises(
        InputError, match=r"class n01440764 of .*train is not among the 10 classes of .*val \(2 classes"
    ):
        open_source(tmp_path / "train", classes_from=tmp_path / "val")


def test_numbers_get_names_and_synsets_find_their_place(train: Photos, tmp_path: Path) -> None:
    numbered = open_source(mini.write_numbered(tmp_path / "x", train))
    (tmp_path / "list.txt").write_text("\n".join(SYNSETS))
    assert sorted(contents(RelabeledSource(numbered, SYNSETS, "x", "list"))) == sorted(expected(train))
    thousand = open_source(mini.write_webdataset(tmp_path / "y", train, "train"), classes_from=tmp_path / "list.txt")
    assert thousand.classes == SYNSETS and sorted(contents(thousand)) == sorted(expected(train))
    with pytest.raises(InputError, match="class 2 of x is not among the 2 classes of list"):
        RelabeledSource(numbered, ("a", "b"), "x", "list")
    with pytest.raises(InputError, match="list lists class a twice"):
        RelabeledSource(numbered, ("a", "b", "a"), "x", "list")


@given(st.permutations(SYNSETS), st.integers(0, 5))
def test_any_list_keeps_every_samples_class(order: list[str], num_more: int) -> None:
    classes = tuple(order) + tuple(f"more {k}" for k in range(num_more))
    source = RelabeledSource(_Made(), classes, "made", "list")
    assert [source.classes[label] for label in source.labels] == [SYNSETS[label] for label in _Made.labels]


class _Made:
    classes = SYNSETS
    labels = np.array([3, 3, 0, 11, 7])

    def __len__(self) -> int:
        return 5


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe"])
def test_files_that_are_not_lists_are_reported(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(InputError, match=r"list\.txt is not UTF-8 text with one class a line"):
        class_list(tmp_path / "list.txt")
    with pytest.raises(InputError, match="does not exist"):
        class_list(tmp_path / "nowhere")


def test_a_damaged_source_of_classes_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match="x has no class folders"):
        class_list(tmp_path / "x")


def test_synsets_are_in_torchvisions_order() -> None:
    """torchvision's own list has names only, shortened and in part improved, in the order of sorted synsets."""
    found = imagenet_synsets()
    assert len(found) == 1000 and list(found) == sorted(found) and all(map(is_synset, found))
    assert {synset: found.index(synset) for synset in SYNSETS} == NUMBERS
    names = [name.split(",")[0].lower() for name in human_names(found)]
    same = sum(name == other.lower() for name, other in zip(names, _IMAGENET_CATEGORIES, strict=True))
    assert same > 950


def test_unknown_classes_keep_their_names() -> None:
    assert human_names(("dog", "n99999999", "n00007846")) == ("dog", "n99999999", human_names(("n00007846",))[0])
    assert class_names_of(_Made())[0] == "tench, Tinca tinca"
    assert not any(map(is_synset, ("n0144076", "n014407640", "N01440764", "n01440764\n", "")))


def test_timm_is_imported_only_for_class_names(train: Photos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError("imports timm")

    monkeypatch.setattr(synsets, "_info", refuse)
    source = open_source(mini.write_folder(tmp_path / "x", train))
    assert contents(source) == expected(train)
    with pytest.raises(AssertionError, match="imports timm"):
        class_names_of(source)
