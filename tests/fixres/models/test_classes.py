"""A network's outputs and the data's classes are two lists of names, joined by name."""

from __future__ import annotations

import logging

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixres.models.classes import Outputs, match_classes
from fixres.pipelines.imagenet_classes import imagenet_synsets
from fixres.pipelines.spec import InputError

ANIMALS = ("ant", "bee", "cat", "dog", "elk")
PARTS = ("n15075141", "n01440764", "n01530575")  # 999, 0, 10
TWELVE = tuple(sorted(map(str, range(12))))  # as text: 0, 1, 10, 11, 2, ...


def positions(own: object, given: object, num: int, classes: tuple[str, ...]) -> list[int] | None:
    outputs = match_classes("net", own, given, num, classes).outputs
    return None if outputs is None else outputs.positions.tolist()


@given(st.permutations(ANIMALS), st.integers(1, 5))
def test_named_outputs_are_found_in_any_order(order: list[str], num: int) -> None:
    classes = tuple(order[:num])
    found = positions(ANIMALS, None, 5, classes)
    chosen = range(5) if found is None else found
    assert tuple(ANIMALS[one] for one in chosen) == classes
    assert positions(None, ANIMALS, 5, classes) == found == positions(("a", "b", "c", "d", "e"), ANIMALS, 5, classes)


def test_a_part_of_imagenet_is_known_by_its_synsets() -> None:
    for own in (None, tuple(map(str, range(1000)))):
        assert positions(own, None, 1000, PARTS) == [999, 0, 10]
        assert positions(own, None, 1000, imagenet_synsets()) is None
    assert match_classes("net", None, None, 1000, PARTS).names == imagenet_synsets()
    assert positions(None, "imagenet", 1000, PARTS) == [999, 0, 10]
    assert positions(ANIMALS * 200, "imagenet", 1000, PARTS) == [999, 0, 10]  # what the user says counts
    assert positions(None, "imagenet", 1000, ("10", "2", "999")) == [10, 2, 999]  # folders of ImageNet-V2


def test_outputs_without_names_are_taken_in_order(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert match_classes("net", None, None, 12, TWELVE) == (TWELVE, None)
        assert match_classes("net", ("0", "1"), None, 2, ("cat", "dog")) == (("cat", "dog"), None)
    assert "net: its outputs have no names; they are taken for the data's classes in order, 0 to 9;" in caplog.text
    assert positions(TWELVE, None, 12, TWELVE) is None and positions(TWELVE, None, 12, ("2", "10")) == [4, 2]


@pytest.mark.parametrize(
    ("own", "given", "num", "classes", "message"),
    [
        (ANIMALS, None, 5, ("cat", "cow"), r"net knows 5 classes \(ant.*\), but not 1 of the data's 2, such as cow;"),
        (None, None, 5, ("cat", "dog"), r"net has 5 outputs without names, the data has 2 classes \(cat, dog\); name"),
        (None, None, 1000, ("n01440764", "n99999999"), "has 1000 outputs without names, the data has 2"),
        (None, None, 2, ANIMALS, "net knows 2 classes, the data has 5 .*; give data of the classes it was trained on"),
        (None, "imagenet", 5, ("cat", "dog"), "net has 5 outputs, but --classes gives 1000 names; give as many"),
        (None, ("a", "b", "a"), 3, ("a", "b"), "--classes gives the name a to two outputs; rename one"),
        (tuple(map(str, range(12))), None, 12, TWELVE, "so number 10 could mean either; name its outputs"),
    ],
)
def test_lists_that_do_not_join_are_one_line(
    own: tuple[str, ...] | None, given: object, num: int, classes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        match_classes("net", own, given, num, classes)
    assert "\n" not in str(caught.value)


def test_labels_become_numbers_of_outputs_and_back() -> None:
    outputs = Outputs(torch.tensor([4, 0, 2]), 5)
    assert outputs.is_subset and not Outputs(torch.tensor([1, 0]), 2).is_subset
    assert outputs.choose(torch.arange(10).reshape(2, 5)).tolist() == [[4, 0, 2], [9, 5, 7]]
    labels = torch.tensor([2, 2, 0, 1])
    assert outputs.numbers(labels).tolist() == [2, 2, 4, 0]
    assert outputs.labels(outputs.numbers(labels)).tolist() == labels.tolist()
    assert outputs.labels(torch.tensor([1, 3])).tolist() == [-1, -1]
