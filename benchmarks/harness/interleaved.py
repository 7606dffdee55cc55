"""Speeds are measured in short interleaved windows of work and compared within a round.

A shared machine slows down and speeds up during a benchmark. A disturbance of one engine also hits the next one a
moment later, so the engines work in short windows one after another, and they are compared within a round, never across
rounds. Shorter windows are better: in a simulation of drift and bursts (tests/benchmarks/harness/test_interleaved.py),
at equal total time, ratios scattered by 8 % with windows of 0.5 s, 4 % with 0.25 s and 1 % with 0.1 s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from benchmarks.harness.records import Interruption
from benchmarks.harness.stats import Estimate, estimate, paired_ratio


@dataclass(frozen=True)
class Window:
    """A stretch of one engine's work."""

    num_images: int  # images finished in it
    seconds: float  # wall-clock time
    cpu_seconds: float | None = None  # CPU time of all its threads and processes; None if it was not measured

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
class Rounds:
    """What interleaved measurements gave."""

    windows: dict[str, tuple[Window, ...]]  # for each engine its window in each round that all engines finished
    interrupted: bool = False  # whether Ctrl-C came before the last round was finished

    @property
    def num_rounds(self) -> int:
        return len(next(iter(self.windows.values()), ()))

    def speeds(self, name: str) -> list[float]:
        """Images/s of each round."""
        return [window.images_per_second for window in self.windows[name]]

    def speed(self, name: str) -> Estimate:
        """Images/s: the median of the rounds."""
        return estimate(self.speeds(name))

    def cpu_per_image(self, name: str) -> Estimate | None:
        """CPU seconds for each image: the median of the rounds."""
        values = [window.cpu_seconds_per_image for window in self.windows[name]]
        return None if None in values else estimate([value for value in values if value is not None])

    def ratio(self, one: str, other: str) -> Estimate:
        """How many times as fast `one` is as `other`."""
        return paired_ratio(self.speeds(one), self.speeds(other))

    def relative(self, name: str, reference: str) -> dict[str, Any]:
        """A record's entries for speed and speed relative to the reference."""
        relative = self.ratio(name, reference).as_json("relative_speed", "relative_speed_interval")
        return self.speed(name).as_json("images_per_second") | relative


def interleave(runs: Mapping[str, Callable[[], Window]], num_rounds: int, title: str, mirrored: bool = True) -> Rounds:
    """Measures all engines round by round; Ctrl-C ends the measurement and keeps the finished rounds.

    In a mirrored round all engines work in one order and then in the reverse order (A B C, C B A), and the two windows
    of an engine are added, so a machine that steadily slows down favors no engine. The first engine changes from round
    to round.

    Args:
        runs: functions that do one window of work. They must be warm.
        num_rounds: 1 or more.
        title: of the progress bar.
        mirrored: if False, each engine works once in a round, and every other round is reversed.
    """
    windows: dict[str, list[Window]] = {name: [] for name in runs}
    total = num_rounds * len(runs) * (2 if mirrored else 1)
    with Interruption() as interruption, tqdm(total=total, desc=title, unit=" windows", disable=None) as bar:
        for number in range(num_rounds):
            done: dict[str, Window] = {}
            for name in _order(list(runs), number, mirrored):
                window = runs[name]()
                done[name] = done[name] + window if name in done else window
                bar.update()
            for name, window in done.items():
                windows[name].append(window)
    finished = min(map(len, windows.values()))
    return Rounds({name: tuple(found[:finished]) for name, found in windows.items()}, interruption.happened)


def _order(names: list[str], number: int, mirrored: bool) -> list[str]:
    first = (number if mirrored else number // 2) % len(names)
    order = names[first:] + names[:first]
    if mirrored:
        return order + order[::-1]
    return order[::-1] if number % 2 else order
