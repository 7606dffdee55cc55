"""Final evaluations of the trainings in a savings record, and their comparison over seeds.

One training has up to three final evaluations: at its training resolution, at a larger resolution, and at the larger
resolution after fine-tuning. They share the training time; only the last one includes the fine-tuning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.stats import Spread, differences, ratios, spread_of
from fixres.pipelines.spec import InputError

REFERENCES = ("large", "baseline")
"""Variants with which the others are compared; the first of them that was trained."""


@dataclass(frozen=True)
class FinalEvaluation:
    """One trained variant, tested in one way, in one seed. Accuracies are fractions."""

    title: str  # such as "small + FixRes"
    variant: str  # name of the training
    trained: str  # training resolutions as text, such as "64 to 96 px"
    test_res: int  # test resolution in pixels
    finetuned: bool  # whether it comes after FixRes fine-tuning
    top1: float  # accuracy at `test_res`
    train_seconds: float  # training time
    finetune_seconds: float  # time of the fine-tuning, 0 without one
    # opening, training, fine-tuning, saving and one test at the end. The tests for curves and sweeps, which only a
    # benchmark makes, are left out.
    wall_seconds: float
    # (seconds of training and fine-tuning, top1) of each test during the run, the last one at the end
    curve: list[tuple[float, float]]

    @property
    def total_seconds(self) -> float:
        """Training and fine-tuning."""
        return self.train_seconds + self.finetune_seconds

    def seconds_to(self, target: float) -> float | None:
        """Seconds of training and fine-tuning until a test reaches `target`; None if none does."""
        return next((seconds for seconds, top1 in self.curve if top1 >= target), None)


def evaluations_of_run(run: dict[str, Any]) -> dict[str, list[FinalEvaluation]]:
    """The final evaluations of one seed, by variant.

    The first variant also pays for shared work such as loading libraries. All variants open and save the same files, so
    the smallest of their times counts for each.
    """
    opening = min(variant["paused_seconds"] - variant["evaluate_seconds"] for variant in run["variants"])
    return {variant["name"]: evaluations_of(variant, opening) for variant in run["variants"]}


def evaluations_of(variant: dict[str, Any], opening: float) -> list[FinalEvaluation]:
    """The final evaluations of one trained variant, first the one at its training resolution.

    A variant without fine-tuning is also tested at the larger resolutions of the sweep, because a gain from testing
    larger without fine-tuning must not be attributed to FixRes. `opening` are the seconds for opening and saving.
    """
    own, name, finetuned = variant["train_res"], variant["name"], bool(variant["sweep_after"])
    larger = {int(side) for side in variant["sweep_before"] if int(side) > own and not finetuned}
    found = [_evaluation(variant, name, own, False, opening)]
    for side in sorted({variant["test_res"], *larger} - {own}):
        title = f"{name}, tested {'larger' if side > own else 'smaller'}"
        found.append(_evaluation(variant, title, side, False, opening))
    if finetuned:
        found.append(_evaluation(variant, f"{name} + FixRes", variant["test_res"], True, opening))
    return found


def _evaluation(variant: dict[str, Any], title: str, test_res: int, finetuned: bool, opening: float) -> FinalEvaluation:
    top1 = variant["sweep_after" if finetuned else "sweep_before"][str(test_res)]
    finetune_seconds = variant["finetune_seconds"] if finetuned else 0.0
    total = variant["train_seconds"] + finetune_seconds
    # Tests during the run are at the variant's test resolution, before fine-tuning; else there is only the final test.
    has_curve = not finetuned and test_res == variant["test_res"]
    curve = [(seconds, value) for _, seconds, value in variant["curve"]] if has_curve else []
    first, last = variant["train_res_by_epoch"][0], variant["train_res"]
    return FinalEvaluation(
        title=title,
        variant=variant["name"],
        trained=f"{first} px" if first == last else f"{first} to {last} px",
        test_res=test_res,
        finetuned=finetuned,
        top1=top1,
        train_seconds=variant["train_seconds"],
        finetune_seconds=finetune_seconds,
        wall_seconds=total + opening + variant["test_seconds"][str(test_res)],
        curve=curve or [(total, top1)],
    )


@dataclass(frozen=True)
class Comparison:
    """One final evaluation over all seeds, compared with the reference of the same seeds."""

    evaluations: list[FinalEvaluation]  # in each seed
    reference: list[FinalEvaluation]  # the reference variant at its training resolution, in each seed

    @property
    def first(self) -> FinalEvaluation:
        """For what all seeds have in common: title and resolutions."""
        return self.evaluations[0]

    def spread(self, field: str) -> Spread:
        """Spread over the seeds of an attribute of the evaluations."""
        return spread_of([getattr(one, field) for one in self.evaluations])

    def delta_top1(self) -> Spread:
        """Accuracy minus that of the reference, seed by seed."""
        return differences([one.top1 for one in self.evaluations], [one.top1 for one in self.reference])

    def speedup(self, field: str = "total_seconds") -> Spread:
        """Time of the reference over this one's, seed by seed."""
        times = ([getattr(one, field) for one in found] for found in (self.reference, self.evaluations))
        return ratios(*times)

    @property
    def loses(self) -> bool:
        """Whether accuracy is lost beyond the spread.

        The spread is a standard deviation over seeds: of the reference's accuracy or of the differences, whichever is
        smaller, so that a noisy variant cannot hide its loss in its own noise.
        """
        delta, reference = self.delta_top1(), spread_of([one.top1 for one in self.reference])
        return delta.mean < -min(delta.sd or 0.0, reference.sd or 0.0)

    def verdict(self) -> str:
        """The result in one line."""
        speedup, delta = self.speedup(), self.delta_top1()
        found = "a loss beyond the spread" if self.loses else "no loss beyond the spread"
        intervals = [f" (95 % interval {one})" for one in (speedup.interval(1, 2), delta.interval(100, 1, "+"))]
        if delta.sd is None:
            found, intervals = "one seed, so its spread is unknown", ["", ""]
        return (
            f"{self.first.title}: training speed-up {speedup.mean:.2f}, fine-tuning included{intervals[0]}; "
            f"delta top-1 {delta.text(100, 1, '+')} percentage points{intervals[1]}: {found}"
        )

    def reached(self, target: float) -> str:
        """Seconds of training and fine-tuning to `target`, and the number of seeds that reached it."""
        seconds = [found for one in self.evaluations if (found := one.seconds_to(target)) is not None]
        if not seconds:
            return "never"
        few = "" if len(seconds) == len(self.evaluations) else f" ({len(seconds)} of {len(self.evaluations)} seeds)"
        return spread_of(seconds).text(1, 0) + few


def compare(record: dict[str, Any]) -> list[Comparison]:
    """A comparison for each final evaluation, first those of the reference."""
    runs = record["runs"]
    names = [variant["name"] for variant in runs[0]["variants"]]
    reference = next((name for name in REFERENCES if name in names), None)
    if reference is None:
        raise InputError(f"variants {', '.join(names)}: none is called large or baseline, so there is no reference")
    names.sort(key=lambda name: name != reference)
    by_seed = [evaluations_of_run(run) for run in runs]
    against = [variants[reference][0] for variants in by_seed]
    return [
        Comparison([variants[name][k] for variants in by_seed], against)
        for name in names
        for k in range(len(by_seed[0][name]))
    ]


def target_of(record: dict[str, Any]) -> float:
    """The accuracy to which times are measured: `--target`, or what the reference reached in its worst seed.

    Rounded down to a whole percentage point, so that the reference reaches it in every seed.
    """
    if record.get("target") is not None:
        return record["target"]
    return math.floor(100 * min(one.top1 for one in compare(record)[0].evaluations)) / 100
