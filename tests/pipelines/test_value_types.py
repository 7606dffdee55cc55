"""Values have the types of their annotations; others are named in one line."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from fixres.pipelines.errors import InputError
from fixres.pipelines.spec import DALIOptions, DataConfig, EvalCrop, LoaderConfig, ShiftCrop, TrainCrop
from fixres.pipelines.value_types import check_types


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (np.int32(3), int),
        (3, float),
        (0.5, float),
        (np.float32(0.5), float),
        (float("inf"), float),
        ("a", str),
        (False, bool),
        (None, int | None),
        ("a", Literal["a", "b"]),
        ((1, 2.0), tuple[float, float]),
        ([1, 2], tuple[float, float]),
        ([1, 2], Sequence[int]),
        (range(3), Sequence[int]),
        ((), Sequence[int]),
        ((1, 2), list[int]),
        ([(0, 128), [4, 160]], list[tuple[int, int]]),
        ({"a": 1}, dict[str, int]),
        ({"a": []}, dict[str, Any]),
        (Path("x"), str | os.PathLike[str]),
        ({"a": 1}, Mapping[str, Any]),
        (object(), Any),
    ],
)
def test_values_of_their_type_pass(value: object, hint: Any) -> None:
    check_types({"x": value, "other": object()}, {"x": hint})


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (2.0, int, "x=2.0 must be a whole number"),
        (True, int, "x=True must be a whole number"),
        (True, float, "x=True must be a number"),
        ("1", float, "x='1' must be a number"),
        (1, bool, "x=1 must be True or False"),
        (b"a", str, "x=b'a' must be text"),
        ("c", Literal["a", "b"], "x='c' must be 'a' or 'b'"),
        ([], Literal["a", "b"], "x=[] must be 'a' or 'b'"),
        (0.5, tuple[float, float], "x=0.5 must be 2 values, each a number"),
        ((1,), tuple[float, float], "x=(1,) must be 2 values, each a number"),
        ("12", tuple[float, float], "x='12' must be 2 values, each a number"),
        ("128", Sequence[int], "x='128' must be a list of whole numbers"),
        ([128, 1.5], Sequence[int], "x=[128, 1.5] must be a list of whole numbers"),
        ([3], list[tuple[int, int]], "x=[3] must be a list, each of its values 2 values, each a whole number"),
        ({"a": "b"}, dict[str, int], "x={'a': 'b'} must be a mapping of names to a whole number"),
        ({1: 1}, dict[str, Any], "x={1: 1} must be a mapping"),
        (3, str | os.PathLike[str], "x=3 must be text or os.PathLike"),
        ("a", int | float | None, "x='a' must be a whole number, a number or None"),
        ([1], Mapping[str, Any], "x=[1] must be a mapping"),
    ],
)
def test_other_values_are_named(value: object, hint: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        check_types({"x": value}, {"x": hint})
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TrainCrop(scale=0.08), "scale=0.08 must be 2 values"),
        (lambda: TrainCrop(hflip="0.5"), "hflip='0.5' must be a number"),
        (lambda: EvalCrop(crop_pct=None), "crop_pct=None must be a number"),
        (lambda: ShiftCrop(crop_pct="0.9"), "crop_pct='0.9' must be a number"),
        (lambda: DALIOptions(prefetch=1.5), "prefetch=1.5 must be a whole number"),
        (lambda: DataConfig(path=Path("x")), "path=.* must be text"),
        (lambda: DataConfig(on_bad="skip"), "on_bad='skip' must be 'stop' or 'replace'"),
        (lambda: LoaderConfig("x", EvalCrop(), 32, 4), "path='x' must be pathlib.Path"),
        (lambda: LoaderConfig(Path("x"), "train", 32, 4), "crop='train' must be TrainCrop, EvalCrop or ShiftCrop"),
        (lambda: LoaderConfig(Path("x"), EvalCrop(), (32, 32), 4), r"resolution=\(32, 32\) must be a whole number"),
        (lambda: LoaderConfig(Path("x"), EvalCrop(), 32, 2.5), "batch_size=2.5 must be a whole number"),
        (lambda: LoaderConfig(Path("x"), EvalCrop(), 32, 4, shuffle=1), "shuffle=1 must be True or False"),
    ],
)
def test_settings_check_their_fields(make: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
