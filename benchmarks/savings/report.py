"""The table of a savings record for documents and terminal, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.stats import spread_of
from benchmarks.harness.tables import Rows, markdown
from benchmarks.savings.comparison import Comparison, compare, target_of
from fixres.config.parsing import recipe_text
from fixres.experiment.figures import variant_colors
from fixres.observability.console import aligned
from fixres.reporting.html_page import condition_rows, embed, write_page
from fixres.reporting.plots import axes, stacked_bars

_HEAD = (
    "", "trained at", "tested at", "top-1, %", "delta top-1 (percentage points)", "training, s", "fine-tuning, s",
    "training + fine-tuning, s", "training speed-up", "wall-clock, s", "wall-clock speed-up", "s to {target:.0%}",
)  # fmt: skip
_DOCUMENT = (0, 1, 2, 3, 4, 7, 8, 9, 10)  # the columns for documents


def rows(record: dict[str, Any]) -> list[list[str]]:
    """A row for each final evaluation."""
    target, found = target_of(record), compare(record)
    head = [title.format(target=target) for title in _HEAD]
    return [head, *(_row(one, target, reference=k == 0) for k, one in enumerate(found))]


def _row(one: Comparison, target: float, reference: bool) -> list[str]:
    seconds = {name: one.spread(f"{name}_seconds").text(1, 0) for name in ("train", "finetune", "total", "wall")}
    return [
        one.first.title,
        one.first.trained,
        f"{one.first.test_res} px",
        one.spread("top1").text(100, 1),
        "0" if reference else one.delta_top1().text(100, 1, "+"),
        seconds["train"],
        seconds["finetune"] if one.first.finetuned else "",
        seconds["total"],
        "1" if reference else one.speedup().text(1, 2),
        seconds["wall"],
        "1" if reference else one.speedup("wall_seconds").text(1, 2),
        one.reached(target),
    ]


def verdicts(record: dict[str, Any]) -> list[str]:
    """A sentence for each evaluation after fine-tuning; for all others if no variant was fine-tuned."""
    others = compare(record)[1:]
    return [one.verdict() for one in others if one.first.finetuned] or [one.verdict() for one in others]


def savings_table(record: dict[str, Any]) -> str:
    """Markdown: the table and its verdicts."""
    table = markdown([[row[k] for k in _DOCUMENT] for row in rows(record)])
    num = len(record["runs"])
    seeds = f"{num} seeds, mean ± standard deviation; differences and ratios seed by seed" if num > 1 else "One seed"
    note = f"{seeds}. Wall-clock time: opening, training, fine-tuning, saving, one test."
    return "\n".join([table, "", *(f"* {one}" for one in verdicts(record)), "", note])


_PLAIN = {"large": "as usual", "small": "small, then fine-tuned", "progressive": "small, then larger, then fine-tuned"}


def savings_summary(record: dict[str, Any]) -> str:
    """README's table: the reference and what was fine-tuned, in plain words."""
    found = compare(record)
    compared = [found[0], *(one for one in found if one.first.finetuned)]
    table = [["training", "trained at", "tested at", "top-1, %", "training time, s", "training speed-up"]]
    for one in compared:
        speedup = "1" if one is found[0] else f"**{one.speedup().mean:.1f}**"
        name, top1, seconds = _PLAIN[one.first.variant], one.spread("top1").text(100, 1), one.spread("total_seconds")
        table.append([name, one.first.trained, f"{one.first.test_res} px", top1, seconds.text(1, 0), speedup])
    lost = [_PLAIN[one.first.variant] for one in compared if one.loses]
    verdict = f"A loss beyond the spread: {', '.join(lost)}." if lost else "No accuracy is lost beyond the spread."
    seeds = f"{len(record['runs'])} seeds, mean ± standard deviation; the time includes the fine-tuning"
    return f"{markdown(table)}\n\n{verdict} {seeds}."


def text(record: dict[str, Any]) -> str:
    """For the terminal."""
    num = len(record["runs"])
    title = f"{num} seed{'s' if num > 1 else ''}; means ± standard deviations; differences and ratios seed by seed"
    found = [title, *aligned(rows(record)), *verdicts(record)]
    if projection := record["projection"]:
        found += ["", *projection["conditions"], *projection["verdicts"]]
    return "\n".join(found)


def page(record: dict[str, Any], target: Path) -> None:
    """Writes HTML in a single file."""
    comparisons, accuracy, first = compare(record), target_of(record), record["runs"][0]
    plots = [_curves(record, accuracy), _sweeps(record), _wall_clock(comparisons), _stages(record)]
    top1 = comparisons[0].spread("top1").mean
    commits = sorted({_commit(run["environment"]) for run in record["runs"]})
    own = {key: value for key, value in first["environment"].items() if not key.startswith("commit")}
    write_page(
        target,
        "benchmarks.savings",
        "savings.html.j2",
        record=record,
        first=first,
        accuracy=accuracy,
        rows=rows(record),
        verdicts=verdicts(record),
        plots=[embed(png) for png in plots],
        sweep=_sweep_rows(record),
        seeds=_seed_rows(record, comparisons),
        comparisons=comparisons,
        standard_error=(top1 * (1 - top1) / first["data"]["num_val"]) ** 0.5,
        conditions=[("commits", "; ".join(commits)), *condition_rows(own)],
        recipe=recipe_text(first["recipe"]),
    )


def _commit(environment: dict[str, Any]) -> str:
    return f"{str(environment['commit'])[:7]}{', with changes' if environment['commit_clean'] is False else ''}"


def _sweep_rows(record: dict[str, Any]) -> Rows:
    """Accuracy by test resolution: a column for each variant as trained, and one after fine-tuning."""
    head, columns = ["test px"], []
    for name, seeds in _by_variant(record).items():
        for key, title in (
            ("sweep_before", "as trained"),
            ("sweep_after", f"fine-tuned for {seeds[0]['test_res']} px"),
        ):
            if seeds[0][key]:
                head.append(f"{name}, {title}")
                columns.append([variant[key] for variant in seeds])
    sides = sorted(columns[0][0], key=int)
    cells = [[spread_of([sweep[side] for sweep in seeds]).text(100, 1) for seeds in columns] for side in sides]
    return [head, *([side, *row] for side, row in zip(sides, cells, strict=True))]


def _seed_rows(record: dict[str, Any], comparisons: Sequence[Comparison]) -> Rows:
    """Accuracy and time of each seed, so that every mean can be checked."""
    head = ["seed", *(f"{one.first.title}, {one.first.test_res} px" for one in comparisons)]
    found = [head]
    for k, run in enumerate(record["runs"]):
        seed = [one.evaluations[k] for one in comparisons]
        found.append([str(run["seed"]), *(f"{100 * one.top1:.2f} % in {one.total_seconds:.1f} s" for one in seed)])
    return found


def _by_variant(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Each variant in all seeds, by name."""
    names = [variant["name"] for variant in record["runs"][0]["variants"]]
    return {name: [run["variants"][k] for run in record["runs"]] for k, name in enumerate(names)}


def _curves(record: dict[str, Any], target: float) -> bytes:
    """top1 at each variant's test resolution over time: each seed thin, the mean thick."""
    variants, title = _by_variant(record), "Accuracy over training time, fine-tuning included"
    colors = variant_colors(variants)
    with axes(title, "seconds of training and fine-tuning", "top-1, %", legend="below") as (plot, png):
        for name, seeds in variants.items():
            color = colors[name]
            curves = np.array([[point[1:] for point in variant["curve"]] for variant in seeds])  # (seeds, tests, 2)
            for seconds, top1 in curves.transpose(0, 2, 1):
                plot.plot(seconds, 100 * top1, "-", color=color, alpha=0.3, lw=0.8)
            seconds, top1 = curves.mean(0).T
            plot.plot(seconds, 100 * top1, "o-", color=color, label=f"{name}, tested at {seeds[0]['test_res']} px")
            if seeds[0]["sweep_after"]:
                ends = np.array([[one["train_seconds"] + one["finetune_seconds"], one["top1"]] for one in seeds])
                plot.plot(ends[:, 0], 100 * ends[:, 1], "*", color=color, alpha=0.5)
                x, y = ends.mean(0)
                label = f"{name}: fine-tuning"
                plot.plot([seconds[-1], x], [100 * top1[-1], 100 * y], "*--", color=color, ms=11, label=label)
        plot.axhline(100 * target, color="black", lw=0.8, ls=":", label=f"{target:.0%}")
    return png.getvalue()


def _wall_clock(comparisons: Sequence[Comparison]) -> bytes:
    """Accuracy of every final evaluation over wall-clock time, with standard deviations."""
    title, colors = "Accuracy over wall-clock time", variant_colors(one.first.variant for one in comparisons)
    with axes(title, "wall-clock seconds, with one test", "top-1, %", legend="below") as (plot, png):
        for one, marker in zip(comparisons, "osD^vPX<>ph*", strict=False):
            seconds, top1, first = one.spread("wall_seconds"), one.spread("top1"), one.first
            marker, size = ("*", 12) if first.finetuned else (marker, 6)
            error = {"xerr": seconds.sd, "yerr": None if top1.sd is None else 100 * top1.sd}
            style = {"fmt": marker, "ms": size, "color": colors[first.variant]}
            plot.errorbar(seconds.mean, 100 * top1.mean, label=f"{first.title}, {first.test_res} px", **error, **style)
        plot.set_xlim(left=0)
    return png.getvalue()


def _sweeps(record: dict[str, Any]) -> bytes:
    """top1 by test resolution, as trained (dotted) and fine-tuned; bands of one standard deviation over seeds."""
    variants, title = _by_variant(record), "Test resolution, before and after fine-tuning"
    colors = variant_colors(variants)
    with axes(title, "test resolution, px", "top-1, %", legend="below") as (plot, png):
        for name, seeds in variants.items():
            color = colors[name]
            for key, style, when in (("sweep_before", "o:", "as trained"), ("sweep_after", "*-", "fine-tuned")):
                if not seeds[0][key]:
                    continue
                sides = sorted(int(side) for side in seeds[0][key])
                top1 = 100 * np.array([[variant[key][str(side)] for side in sides] for variant in seeds])
                plot.plot(sides, top1.mean(0), style, color=color, label=f"{name}, {when}")
                if len(seeds) > 1:
                    sd = top1.std(0, ddof=1)
                    plot.fill_between(sides, top1.mean(0) - sd, top1.mean(0) + sd, color=color, alpha=0.12, lw=0)
            plot.axvline(seeds[0]["train_res"], color=color, alpha=0.35, linewidth=1)
    return png.getvalue()


def _stages(record: dict[str, Any]) -> bytes:
    """Wall-clock time of each variant by stage, mean over seeds."""
    variants = _by_variant(record)

    def mean(field: str) -> np.ndarray:
        return np.array([np.mean([variant[field] for variant in seeds]) for seeds in variants.values()])

    shares = [[one["train_seconds"] * one["data_wait_share"] for one in seeds] for seeds in variants.values()]
    waiting = np.mean(shares, axis=1)
    parts = {
        "training": mean("train_seconds") - waiting,
        "waiting for data": waiting,
        "fine-tuning": mean("finetune_seconds"),
        "tests (curves and sweeps)": mean("evaluate_seconds"),
        "opening, saving": mean("paused_seconds") - mean("evaluate_seconds"),
    }
    return stacked_bars("Time by stage", "seconds, mean over seeds", list(variants), parts)
