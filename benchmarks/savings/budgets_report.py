"""The table of a budgets record, its verdict, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.stats import Spread, differences, spread_of
from benchmarks.harness.tables import markdown
from benchmarks.savings.comparison import REFERENCES, FinalEvaluation, evaluations_of_run
from fixres.config.parsing import recipe_text
from fixres.observability.console import aligned
from fixres.reporting.html_page import condition_rows, embed, write_page
from fixres.reporting.plots import COLORS, REFERENCE_COLOR, axes

_HEAD = ["epochs", "", "trained at", "tested at", "top-1, %", "time", "delta top-1 at equal epochs",
         "delta top-1 at equal time"]  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One way of training and testing at one budget, over the seeds.

    Attributes:
        epochs: of the reference.
        evaluations: one for each seed.
        seconds_per_epoch: of the reference in the same trainings.
    """

    epochs: int
    evaluations: tuple[FinalEvaluation, ...]
    seconds_per_epoch: tuple[float, ...]

    @property
    def title(self) -> str:
        """Such as "small + FixRes"."""
        return self.evaluations[0].title

    @property
    def top1(self) -> list[float]:
        """Accuracy in each seed."""
        return [one.top1 for one in self.evaluations]

    @property
    def times(self) -> list[float]:
        """Training and fine-tuning in epochs of the reference of the same training, in each seed."""
        seconds = [one.total_seconds for one in self.evaluations]
        return [one / unit for one, unit in zip(seconds, self.seconds_per_epoch, strict=True)]


def points(record: dict[str, Any]) -> list[Point]:
    """All points, by rising epochs; first those of the reference. Seeds that lack a budget are left out."""
    runs: dict[int, dict[int, dict[str, Any]]] = {}
    for run in record["runs"]:
        runs.setdefault(max(one["epochs"] for one in run["variants"]), {})[run["seed"]] = run
    seeds = sorted(set.intersection(*(set(found) for found in runs.values()))) if runs else []
    found = []
    for epochs in sorted(runs) if seeds else []:
        chosen = [runs[epochs][seed] for seed in seeds]
        names = [variant["name"] for variant in chosen[0]["variants"]]
        reference = next(name for name in REFERENCES if name in names)
        units = tuple(_epoch_seconds(run, reference) for run in chosen)
        by_seed = [evaluations_of_run(run) for run in chosen]
        for name in sorted(names, key=lambda name: name != reference):
            for one in zip(*(variants[name] for variants in by_seed), strict=True):
                found.append(Point(epochs, one, units))
    return found


def _epoch_seconds(run: dict[str, Any], reference: str) -> float:
    variant = next(one for one in run["variants"] if one["name"] == reference)
    return variant["train_seconds"] / variant["epochs"]


def is_reference(point: Point) -> bool:
    """Whether it is the first variant, tested in any way."""
    return point.evaluations[0].variant in REFERENCES


def references(found: Sequence[Point]) -> list[Point]:
    """For each budget the reference as it is tested best (by its mean): a gain of testing larger belongs to it, too."""
    budgets = sorted({one.epochs for one in found})
    of_budget = ([one for one in found if one.epochs == epochs and is_reference(one)] for epochs in budgets)
    return [max(some, key=lambda one: float(np.mean(one.top1))) for some in of_budget]


def at_equal_time(point: Point, against: Sequence[Point]) -> Spread:
    """top1 minus that of the reference after the same time, seed by seed.

    Between budgets the reference's accuracy is interpolated over the logarithm of time. A point that took less time
    than the shortest reference is compared with that one, which favors the reference.
    """
    theirs = []
    for seed, time in enumerate(point.times):
        times, top1 = zip(*sorted((one.times[seed], one.top1[seed]) for one in against), strict=True)
        theirs.append(float(np.interp(np.log(time), np.log(times), top1)))
    return differences(point.top1, theirs)


def rows(found: Sequence[Point]) -> list[list[str]]:
    """A row for each point that a reader needs: the reference, what was fine-tuned, and what was tested as trained."""
    against = references(found)
    equal = {one.epochs: one for one in against}
    table = [_HEAD]
    for one in found:
        first = one.evaluations[0]
        delta = at_time = ""
        if not is_reference(one):
            delta = _interval(differences(one.top1, equal[one.epochs].top1))
            at_time = _interval(at_equal_time(one, against))
        table.append([
            str(one.epochs), one.title, first.trained, f"{first.test_res} px", spread_of(one.top1).text(100, 1),
            spread_of(one.times).text(1, 1), delta, at_time,
        ])  # fmt: skip
    return table


def _interval(delta: Spread) -> str:
    return f"{100 * delta.mean:+.1f} ({delta.interval(100, 1, '+')})"


def verdict(found: Sequence[Point]) -> str:
    """Where training small wins at equal time and where that is no longer certain, in sentences."""
    against, parts = references(found), []
    for title in dict.fromkeys(one.title for one in found if one.evaluations[0].finetuned):
        some = [one for one in found if one.title == title]
        deltas = {one.epochs: at_equal_time(one, against) for one in some}
        wins = [epochs for epochs, delta in deltas.items() if delta.low is not None and delta.low > 0]
        losses = [epochs for epochs, delta in deltas.items() if delta.high is not None and delta.high < 0]
        others = [epochs for epochs in deltas if epochs not in wins + losses]
        said = [f"more accurate with {_listed(wins)} epochs"] if wins else []
        said += [f"less accurate with {_listed(losses)} epochs"] if losses else []
        said += [f"not certainly different with {_listed(others)} epochs"] if others else []
        parts.append(f"At equal time {title} is {', '.join(said)}.")
    last = max((one.epochs for one in found), default=0)
    return " ".join([*parts, f"Nothing was trained for more than {last} epochs."])


def _listed(numbers: Sequence[int]) -> str:
    words = [str(one) for one in numbers]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


_NOTE = (
    "Mean ± standard deviation over {num} seeds; differences seed by seed in percentage points, with 95 % intervals "
    "(Student's) in brackets. Time: training and fine-tuning, in epochs of large in the same training, which is "
    "interleaved epoch by epoch. Both differences are against large as it is tested best. At equal time: large's "
    "accuracy is interpolated between its budgets; what took less time than its shortest is compared with that."
)


def budgets_table(record: dict[str, Any]) -> str:
    """Markdown: the verdict, the table, the note."""
    if not (found := points(record)):
        return "No seed has all budgets."
    note = _NOTE.format(num=len(found[0].evaluations))
    return f"{verdict(found)}\n\n{markdown(rows(found))}\n\n{note}"


def text(record: dict[str, Any]) -> str:
    """For the terminal."""
    found = points(record)
    if not found:
        return "No seed has all budgets yet."
    return "\n".join([*aligned(rows(found)), "", verdict(found), _NOTE.format(num=len(found[0].evaluations))])


def page(record: dict[str, Any], target: Path) -> None:
    """Writes HTML in a single file."""
    found = points(record)
    first = record["runs"][0]
    write_page(
        target,
        "benchmarks.savings",
        "budgets.html.j2",
        record=record,
        rows=rows(found) if found else [_HEAD],
        verdict=verdict(found) if found else "No seed has all budgets yet.",
        note=_NOTE.format(num=len(found[0].evaluations) if found else 0),
        plot=embed(_plot(found)),
        conditions=condition_rows(first["environment"]),
        recipe=recipe_text(first["recipe"]),
    )


def _plot(found: Sequence[Point]) -> bytes:
    """Accuracy over time with 95 % intervals: the reference and what was fine-tuned."""
    chosen = {"large": references(found)} if found else {}
    for one in found:
        if one.evaluations[0].finetuned:
            chosen.setdefault(one.title, []).append(one)
    with axes("Accuracy over training time", "epochs of large", "top-1, %", legend="below") as (plot, png):
        for (title, some), color in zip(chosen.items(), [REFERENCE_COLOR, *COLORS], strict=False):
            spreads = [spread_of(one.top1) for one in some]
            times, top1 = [spread_of(one.times).mean for one in some], [100 * one.mean for one in spreads]
            error = [100 * ((one.high or one.mean) - one.mean) for one in spreads]
            plot.errorbar(times, top1, yerr=error, fmt="o-", capsize=3, color=color, label=title)
        plot.set_xscale("log")
        plot.xaxis.set_major_formatter("{x:g}")  # 10 instead of a power
        plot.xaxis.set_minor_formatter("{x:g}")
    return png.getvalue()
