"""The page of a record of tricks: what each brings, alone on top of those before it and in the company of all."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.harness import html_page as pages
from benchmarks.harness.stats import Spread, differences
from benchmarks.tricks.table import (
    LESS_HEAD,
    STACK_HEAD,
    Group,
    conditions_line,
    less_one,
    less_rows,
    stack,
    stack_rows,
)


def page(record: dict[str, Any], target: Path) -> None:
    """Writes HTML that needs nothing beside itself."""
    groups, (everything, less) = stack(record), less_one(record)
    gains = _gains([(one.title, one, above) for above, one in pairwise(groups)])
    company = _gains([(one.title, everything, one) for one in less]) if everything else []
    trained = [one for one in groups if one.by_seed]
    pictures = [("top-1 and the price of a step", _prices(trained))] if trained else []
    if gains:
        pictures.append(("what each adds to those before it", _bars("Added to those before it", gains)))
    if company:
        pictures.append(("what each adds to all others", _bars("Added to all others", company)))
    pages.write_page(
        target,
        "tricks.html.j2",
        content=record,
        conditions=pages.conditions_of(record),
        line=conditions_line(record),
        stack=[list(STACK_HEAD), *stack_rows(record)],
        less=[list(LESS_HEAD), *less_rows(record)] if company else [],
        pictures=pictures,
        trainings=_trainings(record),
    )


def _gains(compared: list[tuple[str, Group, Group]]) -> list[tuple[str, Spread]]:
    """Accuracy of one less that of the other, by title, where both were trained with the same seed."""
    pairs = [(title, one.pairs(other, "top1")) for title, one, other in compared]
    return [(title, differences(*found)) for title, found in pairs if found is not None]


def _bars(title: str, gains: list[tuple[str, Spread]]) -> str:
    with pages.axes(title, "points of top-1, 95 % interval of the seeds", "", legend=False) as (plot, png):
        for name, gain in gains:
            half = 0.0 if gain.low is None else 100 * (gain.mean - gain.low)
            plot.barh(name.removeprefix("+ "), 100 * gain.mean, xerr=half, color=pages.COLORS[1], height=0.6)
        plot.axvline(0, color="black", lw=0.8)
        plot.invert_yaxis()
    return pages.embed(png.getvalue())


def _prices(groups: list[Group]) -> str:
    with pages.axes("Accuracy against the price of a step", "ms a step", "top-1, %") as (plot, png):
        for k, one in enumerate(groups):
            color = pages.COLORS[k % len(pages.COLORS)]
            top1, ms = one.spread("top1"), one.spread("seconds_per_step")
            error = None if top1.sd is None else 100 * top1.sd
            marker = "o" if k < len(pages.COLORS) else "s"
            plot.errorbar(1000 * ms.mean, 100 * top1.mean, yerr=error, fmt=marker, color=color, label=one.title)
    return pages.embed(png.getvalue())


def _trainings(record: dict[str, Any]) -> list[list[str]]:
    """Each training by itself, so that every mean can be checked."""
    head = ["variant", "seed", "top-1, %", "before the fix, %", "training, s", "fix, s", "ms a step", "commit"]
    rows = [
        [
            one["variant"],
            str(one["seed"]),
            f"{100 * one['top1']:.2f}",
            f"{100 * one['top1_before_finetune']:.2f}",
            f"{one['train_seconds']:.1f}",
            f"{one['finetune_seconds']:.1f}",
            f"{1000 * one['seconds_per_step']:.1f}",
            str(one["commit"])[:7],
        ]
        for one in record["trainings"]
    ]
    return [head, *rows]
