"""The comparison of benchmarks.savings as Markdown for documents and as rows for terminal and page."""

from __future__ import annotations

from typing import Any

from benchmarks.savings.comparison import Comparison, compare, reached, target_of

HEAD = (
    "", "trained at", "tested at", "top-1, %", "less large, points", "training, s", "fix, s", "times less",
    "program, s", "times less", "s to {target:.0%}",
)  # fmt: skip
_DOCUMENT = (0, 1, 2, 3, 4, 7, 8, 9)  # columns narrow enough for a README


def rows(record: dict[str, Any]) -> list[list[str]]:
    """The head and a row for each end."""
    target, found = target_of(record), compare(record)
    head = [title.format(target=target) for title in HEAD]
    return [head, *(_row(one, target, reference=k == 0) for k, one in enumerate(found))]


def _row(one: Comparison, target: float, reference: bool) -> list[str]:
    first = one.first
    return [
        first.title,
        first.trained,
        f"{first.test_res} px",
        one.top1.text(100, 1),
        "0" if reference else one.gain.text(100, 1, "+"),
        one.train_seconds.text(1, 0),
        one.finetune_seconds.text(1, 0) if first.finetuned else "",
        "1" if reference else one.times_less.text(1, 2),
        one.wall_seconds.text(1, 0),
        "1" if reference else one.program_times_less.text(1, 2),
        reached(one, target),
    ]


def verdicts(record: dict[str, Any]) -> list[str]:
    """A sentence for each fixed end; for all others if nothing was fixed."""
    others = compare(record)[1:]
    return [one.verdict() for one in others if one.first.finetuned] or [one.verdict() for one in others]


def savings_table(record: dict[str, Any]) -> str:
    """Markdown: the table, and what it says."""
    clocks = ["training + fix, s", *(one.clock_seconds.text(1, 0) for one in compare(record))]
    head, *body = (
        [*(row[k] for k in _DOCUMENT[:5]), clock, *(row[k] for k in _DOCUMENT[5:])]
        for row, clock in zip(rows(record), clocks, strict=True)
    )
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in body]
    num = len(record["runs"])
    seeds = f"{num} seeds, mean ± standard deviation; differences and ratios seed by seed" if num > 1 else "One seed"
    seeds += ". Program: opening, training, fix, saving, one test."
    return "\n".join([*lines, "", *(f"* {one}" for one in verdicts(record)), "", seeds])
