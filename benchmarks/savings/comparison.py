"""The ends of trainings that benchmarks.savings compares, from its record; and what many seeds say of them.

One training has up to three ends: tested at its training size, tested larger, and fixed for that larger size. They
share its training clock; only the last one pays for the fix.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.stats import Spread, differences, ratios, spread_of
from pipelines.spec import InputError

REFERENCES = ("large", "baseline")
"""Variants that the others are compared with; the first that was trained."""


@dataclass(frozen=True)
class End:
    """One way to get a tested network, in one seed. Accuracies are fractions, times seconds.

    Attributes:
        title: such as "small + FixRes".
        variant: the training it ends.
        trained: training resolutions as text, such as "64 to 96 px".
        test_res: test resolution in pixels.
        fixed: whether FixRes belongs to it.
        top1: accuracy at `test_res`.
        train_seconds: training clock.
        finetune_seconds: fix clock, 0 where there is none.
        wall_seconds: opening, training, fix, saving and one test at the end. The tests for curves and sweeps, which
            only a benchmark makes, are left out.
        path: (seconds of training and fix, top1) of each test on the way, the last one at the end.
    """

    title: str
    variant: str
    trained: str
    test_res: int
    finetuned: bool
    top1: float
    train_seconds: float
    finetune_seconds: float
    wall_seconds: float
    path: list[tuple[float, float]]

    @property
    def clock_seconds(self) -> float:
        """Training and fix."""
        return self.train_seconds + self.finetune_seconds

    def seconds_to(self, target: float) -> float | None:
        """Training and fix until a test reaches `target`; None if none does."""
        return next((seconds for seconds, top1 in self.path if top1 >= target), None)


def ends_of_run(run: dict[str, Any]) -> dict[str, list[End]]:
    """The ends of all variants of one seed, by variant.

    The first variant to open pays for what all share, such as loading libraries. All open and save the same, so the
    least
    of their times is counted for each.
    """
    opening = min(variant["paused_seconds"] - variant["evaluate_seconds"] for variant in run["variants"])
    return {variant["name"]: ends_of(variant, opening) for variant in run["variants"]}


def ends_of(variant: dict[str, Any], opening: float) -> list[End]:
    """The ends of one trained variant of a record, first the one tested as it was trained.

    A variant without a fix is also tested at the sweep's larger sizes: what testing larger gives the usual way is not
    FixRes's to claim.

    Args:
        variant: as benchmarks.savings records it.
        opening: seconds for opening and saving.
    """
    own, test, name = variant["train_res"], variant["test_res"], variant["name"]
    larger = (
        {test}
        if variant["sweep_after"]
        else {test, *(int(side) for side in variant["sweep_before"] if int(side) > own)}
    )
    found = [_end(variant, name, own, False, opening)]
    for side in sorted(larger - {own}):
        found.append(_end(variant, f"{name}, tested {'larger' if side > own else 'smaller'}", side, False, opening))
    if variant["sweep_after"]:
        found.append(_end(variant, f"{name} + FixRes", test, True, opening))
    return found


def _end(variant: dict[str, Any], title: str, test_res: int, finetuned: bool, opening: float) -> End:
    top1 = variant["sweep_after" if finetuned else "sweep_before"][str(test_res)]
    finetune_seconds = variant["finetune_seconds"] if finetuned else 0.0
    clock = variant["train_seconds"] + finetune_seconds
    # Tests on the way are made unfixed at the variant's test resolution; else there is the one at the end only.
    on_the_way = (
        [] if finetuned or test_res != variant["test_res"] else [(at, value) for _, at, value in variant["curve"]]
    )
    first, last = variant["train_res_by_epoch"][0], variant["train_res"]
    return End(
        title=title,
        variant=variant["name"],
        trained=f"{first} px" if first == last else f"{first} to {last} px",
        test_res=test_res,
        finetuned=finetuned,
        top1=top1,
        train_seconds=variant["train_seconds"],
        finetune_seconds=finetune_seconds,
        wall_seconds=clock + opening + variant["test_seconds"][str(test_res)],
        path=on_the_way or [(clock, top1)],
    )


@dataclass(frozen=True)
class Comparison:
    """One end over all seeds, against large throughout in the same seeds.

    Attributes:
        ends: the end in each seed.
        top1: accuracy.
        reference_top1: accuracy of large throughout.
        gain: accuracy less that of large throughout, seed by seed.
        train_seconds: training clock.
        finetune_seconds: fix clock.
        clock_seconds: both.
        wall_seconds: program clock with one test.
        times_less: training clock of large throughout over this one's, fix included, seed by seed.
        program_times_less: the same of the program clocks.
    """

    ends: list[End]
    top1: Spread
    reference_top1: Spread
    gain: Spread
    train_seconds: Spread
    finetune_seconds: Spread
    clock_seconds: Spread
    wall_seconds: Spread
    times_less: Spread
    program_times_less: Spread

    @property
    def first(self) -> End:
        """For what all seeds have in common: title and resolutions."""
        return self.ends[0]

    @property
    def loses(self) -> bool:
        """Whether accuracy is lost beyond the spread.

        The spread is a standard deviation over seeds: of the reference's accuracy or of the differences, whichever is
        smaller, so that an unsteady variant cannot hide its loss in its own noise.
        """
        return self.gain.mean < -min(self.gain.sd or 0.0, self.reference_top1.sd or 0.0)

    def verdict(self) -> str:
        """What the figures say, in one line."""
        seconds, gain = self.times_less, self.gain
        found = "a loss beyond the spread" if self.loses else "no loss beyond the spread"
        if gain.sd is None:
            found = "one seed, so its spread is unknown"
        interval = "" if seconds.sd is None else f" (95 % interval {seconds.interval(1, 2)})"
        points = "" if gain.sd is None else f" (95 % interval {gain.interval(100, 1, '+')})"
        return (
            f"{self.first.title}: {seconds.mean:.2f} times less training time, fix included{interval}; "
            f"top-1 {gain.text(100, 1, '+')} points{points}: {found}"
        )


def compare(record: dict[str, Any]) -> list[Comparison]:
    """Every end of the record's variants, the reference first."""
    runs = record["runs"]
    names = [variant["name"] for variant in runs[0]["variants"]]
    reference = next((name for name in REFERENCES if name in names), None)
    if reference is None:
        raise InputError(
            f"variants {', '.join(names)}: none is called large or baseline, so there is nothing to compare with"
        )
    names.sort(key=lambda name: name != reference)
    by_seed = [ends_of_run(run) for run in runs]
    against = [variants[reference][0] for variants in by_seed]
    return [
        _compare([variants[name][k] for variants in by_seed], against)
        for name in names
        for k in range(len(by_seed[0][name]))
    ]


def _compare(ends: list[End], against: list[End]) -> Comparison:
    def values(field: Callable[[End], float]) -> tuple[list[float], list[float]]:
        return [field(end) for end in ends], [field(end) for end in against]

    top1, clock = values(lambda end: end.top1), values(lambda end: end.clock_seconds)
    program = values(lambda end: end.wall_seconds)
    return Comparison(
        ends=ends,
        top1=spread_of(top1[0]),
        reference_top1=spread_of(top1[1]),
        gain=differences(*top1),
        train_seconds=spread_of([end.train_seconds for end in ends]),
        finetune_seconds=spread_of([end.finetune_seconds for end in ends]),
        clock_seconds=spread_of(clock[0]),
        wall_seconds=spread_of(program[0]),
        times_less=ratios(clock[1], clock[0]),
        program_times_less=ratios(program[1], program[0]),
    )


def target_of(record: dict[str, Any]) -> float:
    """The accuracy that times are measured to: asked for, or what large throughout reached in its worst seed.

    Rounded down to a whole point, so that large throughout reaches it in every seed.
    """
    if record.get("target") is not None:
        return record["target"]
    return math.floor(100 * min(end.top1 for end in compare(record)[0].ends)) / 100


def reached(comparison: Comparison, target: float) -> str:
    """Seconds of training and fix to `target`, and in how many seeds it was reached at all."""
    seconds = [found for end in comparison.ends if (found := end.seconds_to(target)) is not None]
    if not seconds:
        return "never"
    few = "" if len(seconds) == len(comparison.ends) else f" ({len(seconds)} of {len(comparison.ends)} seeds)"
    return spread_of(seconds).text(1, 0) + few
