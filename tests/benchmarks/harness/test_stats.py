"""Means, spreads and Student's intervals compared with values from a textbook's tables."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.stats import Spread, differences, ratios, spread_of


def test_three_measurements_by_hand() -> None:
    spread = spread_of([10.0, 12.0, 14.0])
    assert (spread.num, spread.mean, spread.sd) == (3, 12.0, 2.0)
    # t(2 degrees of freedom, 97.5 %) = 4.30265; 4.30265 * 2 / sqrt(3) = 4.96828
    assert (spread.low, spread.high) == (pytest.approx(7.03172, abs=1e-5), pytest.approx(16.96828, abs=1e-5))
    assert spread.text(1, 1) == "12.0 ± 2.0" and spread.interval(1, 1) == "7.0 to 17.0"


def test_one_measurement_has_no_spread() -> None:
    assert spread_of([0.5]) == Spread(1, 0.5, None, None, None)
    assert spread_of([0.5]).text(100, 1, "+") == "+50.0"
    assert spread_of([0.5]).interval() == "one seed, no interval"


def test_pairs_cancel_what_they_share() -> None:
    gain = differences([0.71, 0.81, 0.91], [0.70, 0.80, 0.90])
    assert gain.mean == pytest.approx(0.01) and gain.sd == pytest.approx(0, abs=1e-12)
    assert ratios([6.0], [2.0]) == Spread(1, 3.0)


def test_ratios_average_by_their_logarithms() -> None:
    found = ratios([1.0, 4.0], [2.0, 2.0])
    assert found.mean == pytest.approx(1.0) and found.sd == pytest.approx(1.06066, abs=1e-5)
    # logarithms -0.6931 and 0.6931, deviation 0.98026, times 12.706 / sqrt(2): 8.8073, whose exponential is 6682
    assert found.low == pytest.approx(1 / 6682, rel=1e-3) and found.high == pytest.approx(6682, rel=1e-3)
    assert ratios([6.0, 30.0], [2.0, 10.0]).interval(1, 2) == "3.00 to 3.00"


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        differences([1.0], [1.0, 2.0])


def test_intervals_contain_the_mean_in_95_of_100_cases() -> None:
    draws = np.random.default_rng(0).normal(5.0, 2.0, (4000, 4))
    held = sum(spread.low < 5.0 < spread.high for spread in map(spread_of, draws.tolist()))  # type: ignore[operator]
    # Binomial: four standard errors are 1.4 points.
    assert held / 4000 == pytest.approx(0.95, abs=0.014)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=60))
def test_intervals_are_at_least_as_wide_as_a_normal_one(values: list[float]) -> None:
    spread = spread_of(values)
    assert spread.sd is not None and spread.low is not None and spread.high is not None
    half = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
    assert spread.high - spread.mean >= half - 1e-9 and spread.mean - spread.low >= half - 1e-9
