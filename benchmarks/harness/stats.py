"""Mean, spread and Student's interval of a few measurements, and of their differences pair by pair."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t, the 97.5 % quantile, for 1 to 30 degrees of freedom.
_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """Some measurements of one thing.

    Attributes:
        num: how many.
        mean: their mean.
        sd: standard deviation (n - 1), None of one measurement.
        low: lower end of the 95 % interval of the mean (Student's t), None of one.
        high: its upper end.
    """

    num: int
    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None

    def text(self, factor: float = 1.0, digits: int = 1, sign: str = "") -> str:
        """Mean ± standard deviation; `sign` is "+" for differences."""
        mean = f"{factor * self.mean:{sign}.{digits}f}"
        return mean if self.sd is None else f"{mean} ± {factor * self.sd:.{digits}f}"

    def interval(self, factor: float = 1.0, digits: int = 1, sign: str = "") -> str:
        """The 95 % interval as "low to high", or that one measurement has none."""
        if self.low is None or self.high is None:
            return "one seed, no interval"
        return f"{factor * self.low:{sign}.{digits}f} to {factor * self.high:{sign}.{digits}f}"


def spread_of(values: Sequence[float]) -> Spread:
    """The spread of at least one measurement."""
    mean = statistics.mean(values)
    if len(values) == 1:
        return Spread(1, mean)
    sd = statistics.stdev(values)
    # Beyond the table the last entry is kept: 4 % wider than the normal distribution's, never too narrow.
    half = _T975[min(len(values) - 1, len(_T975)) - 1] * sd / math.sqrt(len(values))
    return Spread(len(values), mean, sd, mean - half, mean + half)


def differences(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours less theirs, pair by pair: what both share, such as a seed or a busy machine, cancels."""
    return spread_of([one - other for one, other in zip(ours, theirs, strict=True)])


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Ours over theirs, pair by pair, both positive.

    Mean and interval are those of the logarithms, taken back: a half and a double average to 1, and no interval reaches
    below 0. The standard deviation is that of the ratios themselves.
    """
    found = [one / other for one, other in zip(ours, theirs, strict=True)]
    logs = spread_of([math.log(one) for one in found])
    if logs.low is None or logs.high is None:
        return spread_of(found)
    return Spread(len(found), math.exp(logs.mean), statistics.stdev(found), math.exp(logs.low), math.exp(logs.high))
