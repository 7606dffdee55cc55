"""How speeds are measured and compared: windows of work that take turns, medians, ratios within a round, intervals.

A machine that others use slows down and speeds up while a benchmark runs. What it does to one contender it does to the
next a moment later, so contenders take turns in short windows and are compared within a round, never across rounds.
The shorter the windows the better: in a simulation of drift and bursts
(tests/benchmarks/harness/test_interleaved.py), at equal
total time, ratios scattered by 8 % with windows of 0.5 s, 4 % with 0.25 s and 1 % with 0.1 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_NUM_RESAMPLES = 2000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Window:
    """A stretch of one contender's work.

    Attributes:
        num_images: images that were finished in it.
        seconds: of the wall clock.
        cpu_seconds: of all its threads and processes; None if nobody looked.
    """

    num_images: int
    seconds: float
    cpu_seconds: float | None = None

    def __add__(self, other: Window) -> Window:
        known = self.cpu_seconds is not None and other.cpu_seconds is not None
        cpu = self.cpu_seconds + other.cpu_seconds if known else None
        return Window(self.num_images + other.num_images, self.seconds + other.seconds, cpu)

    @property
    def images_per_second(self) -> float:
        return self.num_images / self.seconds

    @property
    def cpu_seconds_per_image(self) -> float | None:
        return None if self.cpu_seconds is None or not self.num_images else self.cpu_seconds / self.num_images


@dataclass(frozen=True)
class Estimate:
    """A measured value.

    Attributes:
        value: the estimate.
        low: lower end of the 95 % confidence interval; the lowest round if there are fewer than five.
        high: its upper end, likewise.
        num_rounds: measurements behind it.
    """

    value: float
    low: float
    high: float
    num_rounds: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Turns:
    """What contenders did when they took turns.

    Attributes:
        rounds: for each contender its window in each round that all of them finished.
        interrupted: whether Ctrl-C came before the last round was finished.
    """

    rounds: dict[str, tuple[Window, ...]]
    interrupted: bool = False

    @property
    def num_rounds(self) -> int:
        return len(next(iter(self.rounds.values()), ()))

    def speed(self, name: str) -> Estimate:
        """Images a second: the median of the rounds."""
        return estimate([window.images_per_second for window in self.rounds[name]])

    def cpu_per_image(self, name: str) -> Estimate | None:
        """CPU seconds an image, of all threads and processes: the median of the rounds."""
        values = [window.cpu_seconds_per_image for window in self.rounds[name]]
        return None if None in values else estimate([value for value in values if value is not None])

    def ratio(self, one: str, other: str) -> Estimate:
        """How many times faster `one` is than `other`."""
        speeds = [[window.images_per_second for window in self.rounds[name]] for name in (one, other)]
        return paired_ratio(*speeds)


def estimate(values: Sequence[float], center: Callable[..., Any] = np.median) -> Estimate:
    """Center of some measurements with a bootstrap interval.

    Args:
        values: one for each round, one at least.
        center: of the last axis of an array, called with `axis=-1`.
    """
    sample = np.asarray(values, float)
    if len(sample) < 5:  # of so few, resampling cannot tell how far they lie apart
        low, high = sample.min(), sample.max()
    else:
        generator = np.random.default_rng(0)
        resampled = sample[generator.integers(0, len(sample), (_NUM_RESAMPLES, len(sample)))]
        low, high = np.quantile(center(resampled, axis=-1), [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Estimate(float(center(sample, axis=-1)), float(low), float(high), len(sample))


def paired_ratio(ones: Sequence[float], others: Sequence[float]) -> Estimate:
    """How many times `ones` is `others`, from speeds of the same rounds.

    The geometric interquartile mean of the rounds' ratios. Within a round the machine's state cancels; logarithms make
    the ratio of A to B the inverse of that of B to A; and the mean of the middle half takes no notice of a quarter of
    spoilt rounds on either side (something else woke up during one contender's window), yet needs a quarter fewer
    rounds than the median for the same spread under ordinary noise. A ratio of sums scattered two to three times as far
    in the simulation: it follows the few fastest rounds.
    """
    logs = np.log(np.asarray(ones, float)) - np.log(np.asarray(others, float))
    found = estimate(logs, interquartile_mean)
    return Estimate(*np.exp([found.value, found.low, found.high]).tolist(), found.num_rounds)


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half along an axis; of fewer than four values, of all."""
    ordered = np.sort(np.moveaxis(np.asarray(values, float), axis, -1), axis=-1)
    cut = ordered.shape[-1] // 4
    return ordered[..., cut : ordered.shape[-1] - cut].mean(-1)


def take_turns(
    runs: Mapping[str, Callable[[], Window]],
    num_rounds: int,
    there_and_back: bool = True,
    progress: Callable[[], Any] = lambda: None,
) -> Turns:
    """Lets contenders work in turns; Ctrl-C ends it and keeps the rounds that were finished.

    In a round they work in one order and then in the reverse (A B C, C B A), and their two windows are added, so a
    machine that steadily slows down favors nobody. The first one changes from round to round.

    Args:
        runs: does one window of a contender's work; warm-up is the caller's.
        num_rounds: 1 or more.
        there_and_back: if not, each works once in a round, and every other round is reversed.
        progress: called after each window.
    """
    rounds: dict[str, list[Window]] = {name: [] for name in runs}
    try:
        for number in range(num_rounds):
            done: dict[str, Window] = {}
            for name in _order(list(runs), number, there_and_back):
                window = runs[name]()
                done[name] = done[name] + window if name in done else window
                progress()
            for name, window in done.items():
                rounds[name].append(window)
    except KeyboardInterrupt:
        finished = min(len(windows) for windows in rounds.values())
        return Turns({name: tuple(windows[:finished]) for name, windows in rounds.items()}, interrupted=True)
    return Turns({name: tuple(windows) for name, windows in rounds.items()})


def _order(names: list[str], number: int, there_and_back: bool) -> list[str]:
    if there_and_back:
        first = number % len(names)
        there = names[first:] + names[:first]
        return there + there[::-1]
    first = number // 2 % len(names)
    there = names[first:] + names[:first]
    return there[::-1] if number % 2 else there
