"""The formulas compared with sums by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixres.pipelines.spec import InputError
from fixres.projection.model import Speeds, phases

STEP = Speeds({128: 1000.0, 224: 300.0}, True, "made")
LOADER = Speeds({128: 100.0, 224: 50.0}, False, "made")


def test_by_hand() -> None:
    train, finetune = phases(STEP.times(2), LOADER.times(10), 6000, {128: 3}, (224, 1))
    assert (train.seconds, train.limit) == (3 * 6000 / 1000, "loader")  # 10 cores give 1000, 2 devices could take 2000
    assert (finetune.seconds, finetune.limit) == (6000 / 500, "loader")  # 500 against 3 * 600
    (train,) = phases(STEP, LOADER.times(100), 6000, {224: 2}, (224, 0))
    assert (train.seconds, train.limit) == (2 * 6000 / 300, "network")


@pytest.mark.parametrize(
    ("speeds", "resolution", "speed"),
    [
        (STEP, 128, 1000.0), (STEP, 64, 4000.0), (STEP, 448, 75.0), (LOADER, 448, 50.0), (LOADER, 64, 100.0),
        (Speeds({100: 100.0, 400: 1.0}, True, "made"), 200, 10.0),
    ],
)  # fmt: skip
def test_known_between_and_beyond(speeds: Speeds, resolution: int, speed: float) -> None:
    assert speeds.at(resolution) == pytest.approx(speed)


def test_what_is_not_known_is_marked() -> None:
    assert STEP.text([64, 128, 160]) == (
        "4000 at 64 px (scaled by pixels from 128 px), 1000 at 128 px, 618.7 at 160 px (interpolated)"
    )
    assert LOADER.text([448]) == "50 at 448 px (taken from 224 px)"


@given(st.integers(32, 512), st.integers(32, 512))
def test_larger_is_never_faster(one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert STEP.at(small) >= STEP.at(large) - 1e-9


@pytest.mark.parametrize(
    ("known", "message"),
    [({}, "no speed to project from; give images/s"), ({128: 0.0}, "0 images/s at 128 px must be a number above 0"),
     ({128: float("nan")}, "nan images/s")],
)  # fmt: skip
def test_speeds_that_cannot_be(known: dict[int, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Speeds(known, True, "made")
