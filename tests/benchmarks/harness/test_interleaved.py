"""Interleaved measurement: order, interruption, and ratios under noise larger than the differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness.interleaved import Window, interleave
from benchmarks.harness.stats import estimate, interquartile_mean, paired_ratio

SPEEDS = {"fast": 9000.0, "middle": 1400.0, "slow": 700.0, "bound": 12000.0}
SECONDS, ROUNDS = 0.15, 40  # the benchmark's defaults


class Machine:
    """Engines on a simulated machine whose speed drifts over minutes, drops for seconds and flickers."""

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self._generator, self._now = generator, 0.0
        drift = np.cumsum(generator.normal(0, 0.03, 30_000))  # a random walk in steps of 10 ms
        drift = 0.7 * np.tanh(drift / 2)  # between a half and twice the speed
        for start in generator.integers(0, len(drift), 120):  # other load for 0.1 to 1 s
            drift[start : start + generator.integers(10, 100)] -= 0.9
        self._speed = np.exp(drift)

    def window(self, name: str, seconds: float) -> Window:
        first = int(self._now * 100)
        part = self._speed[first : first + max(1, round(100 * seconds))]
        self._now += seconds
        flicker = math.exp(self._generator.normal(0, 0.04))
        return Window(round(SPEEDS[name] * part.mean() * seconds * flicker), seconds)

    def runs(self, seconds: float) -> dict[str, Callable[[], Window]]:
        return {name: lambda name=name: self.window(name, seconds) for name in SPEEDS}


def naive_ratio(machine: Machine) -> float:
    """One engine after the other, each for its total time in the benchmark."""
    fast, slow = (machine.window(name, 12.0).images_per_second for name in ("fast", "slow"))
    return fast / slow


def test_ratios_are_within_a_tenth_under_drift_and_naive_ratios_are_not() -> None:
    true = SPEEDS["fast"] / SPEEDS["slow"]
    found, naive = [], []
    for seed in range(60):
        rounds = interleave(Machine(seed).runs(SECONDS), ROUNDS, "")
        found.append(rounds.ratio("fast", "slow").value / true)
        naive.append(naive_ratio(Machine(seed)) / true)
    assert max(abs(np.log(found))) < math.log(1.1)
    assert np.mean(np.abs(np.log(naive)) > math.log(1.1)) > 0.3


def test_two_runs_on_the_same_machine_agree_within_a_tenth() -> None:
    for seed in range(40):
        machine = Machine(100 + seed)
        one, other = (interleave(machine.runs(SECONDS), ROUNDS, "").ratio("fast", "middle").value for _ in range(2))
        assert abs(math.log(one / other)) < math.log(1.1)


def test_intervals_cover_the_truth() -> None:
    true = SPEEDS["fast"] / SPEEDS["slow"]
    ratios = [interleave(Machine(seed).runs(SECONDS), ROUNDS, "").ratio("fast", "slow") for seed in range(60)]
    covered = np.mean([ratio.low <= true <= ratio.high for ratio in ratios])
    assert covered > 0.8 and all(ratio.low < ratio.value < ratio.high for ratio in ratios)
    assert np.median([ratio.high / ratio.low for ratio in ratios]) < 1.15


def test_a_steady_slowdown_favors_no_engine() -> None:
    clock = [0.0]

    def work(speed: float) -> Window:
        clock[0] += 1.0
        return Window(round(1e6 * speed * (1 - 0.002 * (clock[0] - 0.5))), 1.0)

    rounds = interleave({"a": lambda: work(2.0), "b": lambda: work(1.0), "c": lambda: work(4.0)}, 6, "")
    for windows in zip(*rounds.windows.values(), strict=True):
        first = [window.images_per_second / speed for window, speed in zip(windows, (2, 1, 4), strict=True)]
        assert max(first) / min(first) < 1.0001


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=30), st.floats(0.1, 10))
def test_a_ratio_is_the_inverse_of_its_inverse(others: list[float], factor: float) -> None:
    ones = [factor * value for value in others]
    assert paired_ratio(ones, others).value == pytest.approx(factor)
    shuffled = ones[::-1]
    there, back = paired_ratio(shuffled, others), paired_ratio(others, shuffled)
    assert there.value * back.value == pytest.approx(1)


def test_disturbed_rounds_do_not_count() -> None:
    speeds = [10.0] * 12
    disturbed = [1.0, 1.0, *[10.0] * 8, 500.0, 500.0]
    assert paired_ratio(disturbed, speeds).value == pytest.approx(1)
    assert interquartile_mean(np.array([1.0, 2.0, 4.0])) == pytest.approx(7 / 3)
    assert interquartile_mean(np.array([0.0, 2.0, 4.0, 100.0])) == pytest.approx(3)


def test_few_rounds_give_their_range() -> None:
    found = estimate([3.0, 1.0, 2.0])
    assert (found.value, found.low, found.high, found.num_rounds) == (2, 1, 3, 3)


def test_ctrl_c_keeps_the_finished_rounds() -> None:
    calls = iter(range(100))

    def work() -> Window:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return Window(10, 1.0, 0.5)

    rounds = interleave({"a": work, "b": work}, 5, "")
    assert rounds.interrupted and rounds.num_rounds == 2
    assert rounds.windows["a"] == (Window(20, 2.0, 1.0),) * 2
    assert rounds.cpu_per_image("b").value == pytest.approx(0.05)
    nothing = interleave({"a": lambda: (_ for _ in ()).throw(KeyboardInterrupt())}, 5, "")
    assert nothing.interrupted and nothing.num_rounds == 0


def test_without_mirroring_every_other_round_is_reversed() -> None:
    order: list[str] = []

    def runs(name: str) -> Callable[[], Window]:
        return lambda: order.append(name) or Window(1, 1.0)

    interleave({name: runs(name) for name in "abc"}, 4, "", mirrored=False)
    assert "".join(order) == "abc" + "cba" + "bca" + "acb"
    order.clear()
    interleave({name: runs(name) for name in "abc"}, 2, "")
    assert "".join(order) == "abccba" + "bcaacb"
