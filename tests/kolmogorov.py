"""Kolmogorov and Smirnov's tests, without SciPy."""

from __future__ import annotations

import numpy as np

# sqrt(-ln(p / 2) / 2) for p = 1e-4: the asymptotic quantile of sqrt(n) times the largest distance. With ties
# the tests reject less often than that.
_QUANTILE = 2.2253


def same_law(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two samples may come from one law, at the level 1e-4."""
    a, b = np.sort(a), np.sort(b)
    points = np.concatenate([a, b])
    gap = np.searchsorted(a, points, side="right") / len(a) - np.searchsorted(b, points, side="right") / len(b)
    return bool(np.abs(gap).max() < _QUANTILE * np.sqrt(1 / len(a) + 1 / len(b)))


def is_uniform(sample: np.ndarray, low: float = 0.0, high: float = 1.0) -> bool:
    """Whether a sample may be uniform on [low, high], at the level 1e-4."""
    shares = np.clip((np.sort(sample) - low) / (high - low), 0, 1)
    steps = np.arange(len(sample) + 1) / len(sample)
    gap = max(np.abs(shares - steps[1:]).max(), np.abs(shares - steps[:-1]).max())
    return bool(gap < _QUANTILE / np.sqrt(len(sample)))
