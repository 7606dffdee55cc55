"""The pictures of the savings page, each as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.savings.comparison import Comparison
from fixres.experiment.figures import variant_colors
from fixres.reporting.plots import axes as picture
from fixres.reporting.plots import stacked_bars


def _variants(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Each variant in all seeds, by name."""
    return {
        variant["name"]: [run["variants"][k] for run in record["runs"]]
        for k, variant in enumerate(record["runs"][0]["variants"])
    }


def curves(record: dict[str, Any], target: float) -> bytes:
    """top1 at each variant's test resolution against training and fix clock: each seed thin, the mean thick."""
    title, colors = "Accuracy against the training clock, fix included", variant_colors(_variants(record))
    with picture(title, "seconds of training (and fix)", "top-1, %", legend="below") as (axes, png):
        for name, seeds in _variants(record).items():
            color = colors[name]
            paths = np.array([[point[1:] for point in variant["curve"]] for variant in seeds])  # (seeds, tests, 2)
            for seconds_and_top1 in paths:
                axes.plot(seconds_and_top1[:, 0], 100 * seconds_and_top1[:, 1], "-", color=color, alpha=0.3, lw=0.8)
            seconds, top1 = paths.mean(0).T
            axes.plot(seconds, 100 * top1, "o-", color=color, label=f"{name}, tested at {seeds[0]['test_res']} px")
            if seeds[0]["sweep_after"]:
                ends = np.array(
                    [[variant["train_seconds"] + variant["finetune_seconds"], variant["top1"]] for variant in seeds]
                )
                axes.plot(ends[:, 0], 100 * ends[:, 1], "*", color=color, alpha=0.5)
                end = ends.mean(0)
                axes.plot(
                    [seconds[-1], end[0]],
                    [100 * top1[-1], 100 * end[1]],
                    "*--",
                    color=color,
                    ms=11,
                    label=f"{name}: the fix",
                )
        axes.axhline(100 * target, color="black", lw=0.8, ls=":", label=f"{target:.0%}")
    return png.getvalue()


def wall_clock(comparisons: Sequence[Comparison]) -> bytes:
    """Every end's accuracy against the program clock, with standard deviations."""
    title = "Accuracy against the program clock"
    colors = variant_colors([one.first.variant for one in comparisons])
    with picture(title, "seconds of the program, with one test", "top-1, %", legend="below") as (axes, png):
        for one, marker in zip(comparisons, "osD^vPX<>ph*", strict=False):
            axes.errorbar(
                one.wall_seconds.mean,
                100 * one.top1.mean,
                xerr=one.wall_seconds.sd,
                yerr=None if one.top1.sd is None else 100 * one.top1.sd,
                fmt="*" if one.first.finetuned else marker,
                ms=12 if one.first.finetuned else 6,
                color=colors[one.first.variant],
                label=f"{one.first.title}, {one.first.test_res} px",
            )
        axes.set_xlim(left=0)
    return png.getvalue()


def sweeps(record: dict[str, Any]) -> bytes:
    """top1 over test resolutions before (dotted) and after the fix, bands of one standard deviation over seeds."""
    colors = variant_colors(_variants(record))
    with picture("Test resolution, before and after the fix", "test resolution, px", "top-1, %", legend="below") as (
        axes,
        png,
    ):
        for name, seeds in _variants(record).items():
            color = colors[name]
            for key, style, when in (("sweep_before", "o:", "as trained"), ("sweep_after", "*-", "finetuned")):
                if not seeds[0][key]:
                    continue
                sides = sorted(int(side) for side in seeds[0][key])
                top1 = 100 * np.array([[variant[key][str(side)] for side in sides] for variant in seeds])
                axes.plot(sides, top1.mean(0), style, color=color, label=f"{name}, {when}")
                if len(seeds) > 1:
                    sd = top1.std(0, ddof=1)
                    axes.fill_between(sides, top1.mean(0) - sd, top1.mean(0) + sd, color=color, alpha=0.12, lw=0)
            axes.axvline(seeds[0]["train_res"], color=color, alpha=0.35, linewidth=1)
    return png.getvalue()


def stages(record: dict[str, Any]) -> bytes:
    """Where each variant's program time went, mean over seeds."""
    variants = _variants(record)

    def mean(seconds: str) -> np.ndarray:
        return np.array([np.mean([variant[seconds] for variant in seeds]) for seeds in variants.values()])

    waiting = np.array(
        [np.mean([variant["train_seconds"] * variant["data_wait_share"] for variant in s]) for s in variants.values()]
    )
    parts = {
        "training": mean("train_seconds") - waiting,
        "waiting for data": waiting,
        "finetune": mean("finetune_seconds"),
        "tests (curves and sweeps)": mean("evaluate_seconds"),
        "opening, saving": mean("paused_seconds") - mean("evaluate_seconds"),
    }
    return stacked_bars("Time by stage", "seconds, mean over seeds", list(variants), parts)
