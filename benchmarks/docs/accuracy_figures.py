"""Figures of accuracy: published weights over test resolutions, savings over training time."""

from __future__ import annotations

from typing import Any

from benchmarks.docs.line_chart import NUM_COLORS, Line, line_chart
from benchmarks.harness.stats import Spread, spread_of
from benchmarks.published.tables import finetuned, variant
from benchmarks.savings.budgets_report import points, references

_FINETUNING = "classifier and BatchNorm"


def published_figure(record: dict[str, Any]) -> str:
    """top1 by test resolution of each network, as published and after FixRes fine-tuning."""
    lines = []
    for color, network in enumerate(record["networks"][:NUM_COLORS]):
        as_published = [_point(one["test_res"], spread_of(one["top1"])) for one in network["resolutions"]]
        name = f"{network['network'].removeprefix('tf_')}, {network['train_res']} px"
        lines.append(Line(name, [(x, y, y, y) for x, y, _, _ in as_published], color))
        tuned = [_point(one["test_res"], spread_of(variant(one, _FINETUNING)["top1"])) for one in finetuned(network)]
        lines.append(Line("after FixRes" if color == 0 else "", tuned, color, joined=False))
    folds = record["num_folds"]
    notes = [f"{record['num_tested']} pictures in {folds} folds; bars: 95 % intervals over the folds."]
    return line_chart("Published weights by test resolution", "test resolution, px", "top-1, %", lines, notes)


def savings_figure(record: dict[str, Any]) -> str:
    """top1 over training time of the reference and of what was fine-tuned."""
    found = points(record)
    chosen = {"large, tested best": references(found)}
    for one in found:
        if one.evaluations[0].finetuned:
            chosen.setdefault(one.title, []).append(one)
    lines = []
    for (title, some), color in zip(chosen.items(), (4, 0, 1), strict=False):
        spreads = [(spread_of(one.times).mean, spread_of(one.top1)) for one in some]
        lines.append(Line(title, [_point(*one) for one in spreads], color))
    num = len(found[0].evaluations)
    notes = [f"{num} seeds; bars: 95 % intervals. Time: training and fine-tuning, in epochs of large."]
    return line_chart("Accuracy over training time", "epochs of large", "top-1, %", lines, notes, log_x=True)


def _point(x: float, top1: Spread) -> tuple[float, float, float, float]:
    low, high = (top1.mean if end is None else end for end in (top1.low, top1.high))
    return x, 100 * top1.mean, 100 * low, 100 * high
