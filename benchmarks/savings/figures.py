"""The pictures of the savings page, each as PNG bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.savings.comparison import Comparison
from fixres.experiment.figures import ARM_COLOURS, picture, plot_colours


def _arms(record: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Each arm in all seeds, by name."""
    return {arm["name"]: [run["arms"][k] for run in record["runs"]] for k, arm in enumerate(record["runs"][0]["arms"])}


def curves(record: dict[str, Any], target: float) -> bytes:
    """top1 at each arm's test resolution against training and fix clock: each seed thin, the mean thick."""
    title = "Accuracy against the training clock, fix included"
    with picture(title, "seconds of training (and fix)", "top-1, %", below=True) as (axes, png):
        for name, seeds in _arms(record).items():
            colour = ARM_COLOURS[name]
            paths = np.array([[point[1:] for point in arm["curve"]] for arm in seeds])  # (seeds, tests, 2)
            for seconds_and_top1 in paths:
                axes.plot(seconds_and_top1[:, 0], 100 * seconds_and_top1[:, 1], "-", color=colour, alpha=0.3, lw=0.8)
            seconds, top1 = paths.mean(0).T
            axes.plot(seconds, 100 * top1, "o-", color=colour, label=f"{name}, tested at {seeds[0]['test_res']} px")
            if seeds[0]["sweep_after"]:
                ends = np.array([[arm["train_seconds"] + arm["fix_seconds"], arm["top1"]] for arm in seeds])
                axes.plot(ends[:, 0], 100 * ends[:, 1], "*", color=colour, alpha=0.5)
                end = ends.mean(0)
                axes.plot(
                    [seconds[-1], end[0]],
                    [100 * top1[-1], 100 * end[1]],
                    "*--",
                    color=colour,
                    ms=11,
                    label=f"{name}: the fix",
                )
        axes.axhline(100 * target, color="black", lw=0.8, ls=":", label=f"{target:.0%}")
    return png.getvalue()


def program_clock(comparisons: Sequence[Comparison]) -> bytes:
    """Every end's accuracy against the program clock, with standard deviations."""
    title = "Accuracy against the program clock"
    with picture(title, "seconds of the program, with one test", "top-1, %", below=True) as (axes, png):
        for one, marker in zip(comparisons, "osD^vPX<>ph*", strict=False):
            axes.errorbar(
                one.program_seconds.mean,
                100 * one.top1.mean,
                xerr=one.program_seconds.sd,
                yerr=None if one.top1.sd is None else 100 * one.top1.sd,
                fmt="*" if one.first.fixed else marker,
                ms=12 if one.first.fixed else 6,
                color=ARM_COLOURS[one.first.arm],
                label=f"{one.first.title}, {one.first.test_res} px",
            )
        axes.set_xlim(left=0)
    return png.getvalue()


def sweeps(record: dict[str, Any]) -> bytes:
    """top1 over test resolutions before (dotted) and after the fix, bands of one standard deviation over seeds."""
    with picture("Test resolution, before and after the fix", "test resolution, px", "top-1, %", below=True) as (
        axes,
        png,
    ):
        for name, seeds in _arms(record).items():
            colour = ARM_COLOURS[name]
            for key, style, when in (("sweep_before", "o:", "as trained"), ("sweep_after", "*-", "fixed")):
                if not seeds[0][key]:
                    continue
                sides = sorted(int(side) for side in seeds[0][key])
                top1 = 100 * np.array([[arm[key][str(side)] for side in sides] for arm in seeds])
                axes.plot(sides, top1.mean(0), style, color=colour, label=f"{name}, {when}")
                if len(seeds) > 1:
                    sd = top1.std(0, ddof=1)
                    axes.fill_between(sides, top1.mean(0) - sd, top1.mean(0) + sd, color=colour, alpha=0.12, lw=0)
            axes.axvline(seeds[0]["train_res"], color=colour, alpha=0.35, linewidth=1)
    return png.getvalue()


def stages(record: dict[str, Any]) -> bytes:
    """Where each arm's program time went, mean over seeds."""
    arms = _arms(record)

    def mean(seconds: str) -> np.ndarray:
        return np.array([np.mean([arm[seconds] for arm in seeds]) for seeds in arms.values()])

    waiting = np.array([np.mean([arm["train_seconds"] * arm["data_wait_share"] for arm in s]) for s in arms.values()])
    parts = {
        "training": mean("train_seconds") - waiting,
        "waiting for data": waiting,
        "fix": mean("fix_seconds"),
        "tests (curves and sweeps)": mean("evaluate_seconds"),
        "opening, saving": mean("paused_seconds") - mean("evaluate_seconds"),
    }
    with picture("Time by stage", "seconds, mean over seeds", "", below=True) as (axes, png):
        left = np.zeros(len(arms))
        for (label, seconds), colour in zip(parts.items(), plot_colours(), strict=True):
            axes.barh(list(arms), seconds, left=left, label=label, color=colour, height=0.55)
            left += seconds
        axes.invert_yaxis()
    return png.getvalue()
