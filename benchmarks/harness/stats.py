"""Estimates from repeated measurements: mean with Student's interval over seeds, median with a bootstrap over rounds.

`scipy.stats` takes a second to import, so it is imported in the functions that need it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_CONFIDENCE = 0.95
_NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Spread:
    """Measurements of one quantity, such as one for each seed."""

    num: int  # number of measurements
    mean: float  # their mean
    sd: float | None = None  # standard deviation (n - 1); None for a single measurement
    low: float | None = None  # lower end of the 95 % interval of the mean (Student's t); None for a single measurement
    high: float | None = None  # upper end of that interval

    def text(self, factor: float = 1.0, digits: int = 1, sign: str = "") -> str:
        """Mean ± standard deviation; `sign` is "+" for differences."""
        mean = f"{factor * self.mean:{sign}.{digits}f}"
        return mean if self.sd is None else f"{mean} ± {factor * self.sd:.{digits}f}"

    def interval(self, factor: float = 1.0, digits: int = 1, sign: str = "") -> str:
        """The 95 % interval as "low to high"; a single measurement has none."""
        if self.low is None or self.high is None:
            return "one seed, no interval"
        return f"{factor * self.low:{sign}.{digits}f} to {factor * self.high:{sign}.{digits}f}"


def spread_of(values: Sequence[float]) -> Spread:
    """The spread of one or more measurements."""
    from scipy.stats import t

    num, mean = len(values), statistics.mean(values)
    if num == 1:
        return Spread(1, mean)
    sd = statistics.stdev(values)
    half = float(t.ppf((1 + _CONFIDENCE) / 2, num - 1)) * sd / math.sqrt(num)
    return Spread(num, mean, sd, mean - half, mean + half)


def differences(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours minus theirs, pair by pair, so that what both share (a seed, a busy machine) cancels."""
    return spread_of([one - other for one, other in zip(ours, theirs, strict=True)])


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, pair by pair; all values are positive.

    Mean and interval are computed on the logarithms: a half and a double average to 1, and no interval reaches below 0.
    The standard deviation is that of the ratios themselves.
    """
    found = [one / other for one, other in zip(ours, theirs, strict=True)]
    logs = spread_of([math.log(one) for one in found])
    if logs.low is None or logs.high is None:
        return spread_of(found)
    return Spread(len(found), math.exp(logs.mean), statistics.stdev(found), math.exp(logs.low), math.exp(logs.high))


@dataclass(frozen=True)
class Estimate:
    """A value measured in several rounds."""

    value: float  # the estimate
    low: float  # lower end of the 95 % confidence interval; the smallest round if there are fewer than five
    high: float  # upper end of the interval; the largest round if there are fewer than five
    num_rounds: int  # number of measurements

    @property
    def interval(self) -> list[float]:
        return [self.low, self.high]

    def as_json(self, value: str = "value", interval: str = "interval") -> dict[str, Any]:
        """The entries of a record, by these names."""
        return {value: self.value, interval: self.interval}


def estimate(values: Sequence[float], center: Callable[..., Any] = np.median) -> Estimate:
    """Center of the rounds' values with a bootstrap interval.

    Args:
        values: one for each round, at least one.
        center: called with `axis=-1`.
    """
    sample = np.asarray(values, float)
    value = float(center(sample, axis=-1))
    if len(sample) < 5:  # resampling so few does not show how much they vary
        return Estimate(value, float(sample.min()), float(sample.max()), len(sample))
    from scipy.stats import bootstrap

    generator = np.random.default_rng(0)
    options = {"confidence_level": _CONFIDENCE, "method": "percentile", "n_resamples": _NUM_RESAMPLES}
    low, high = bootstrap((sample,), center, vectorized=True, rng=generator, **options).confidence_interval
    return Estimate(value, float(low), float(high), len(sample))


def paired_ratio(ones: Sequence[float], others: Sequence[float]) -> Estimate:
    """How many times as fast `ones` are as `others`, from speeds of the same rounds.

    The geometric interquartile mean of the rounds' ratios. The state of the machine cancels within a round. Logarithms
    make the ratio of A to B the inverse of that of B to A. The mean of the middle half ignores a quarter of disturbed
    rounds on either side and needs a quarter fewer rounds than the median for the same spread under ordinary noise.
    In the simulation of tests/benchmarks/harness/test_interleaved.py, a ratio of sums scattered two to three times as
    far: the few fastest rounds dominate it.
    """
    logs = np.log(np.asarray(ones, float)) - np.log(np.asarray(others, float))
    found = estimate(logs, interquartile_mean)
    return Estimate(*np.exp([found.value, found.low, found.high]).tolist(), found.num_rounds)


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half along an axis; the mean of all values if there are fewer than four."""
    from scipy.stats import trim_mean

    return trim_mean(values, 0.25, axis=axis)
