"""Plots of an experiment and of distributions over resolutions, each as PNG bytes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from fixres.evaluation.activations import ActivationStatistics
from fixres.experiment.results import VariantResult
from fixres.pipelines.spec import EvalCrop, TrainCrop
from fixres.reporting.plots import COLORS, REFERENCE_COLOR, axes, shades, stacked_bars
from fixres.resolution.apparent_size import sigma_cdf, sizes_in_testing

_MAX_IMAGES = 2000  # in a plot of distributions; more do not change what is visible


def variant_colors(names: Iterable[str]) -> dict[str, str]:
    """A color for each variant; the first is the reference, in gray."""
    unique = list(dict.fromkeys(names))
    return {name: REFERENCE_COLOR if k == 0 else COLORS[(k - 1) % len(COLORS)] for k, name in enumerate(unique)}


def curves(variants: list[VariantResult]) -> bytes:
    """top1 at each variant's test resolution over training time; fine-tuning as a last, dashed step."""
    colors = variant_colors(variant.name for variant in variants)
    title = "Accuracy over training time, fine-tuning included"
    with axes(title, "seconds of training and fine-tuning", "top-1, %") as (plot, png):
        for variant in variants:
            name, color = variant.name, colors[variant.name]
            top1 = [100 * point.top1 for point in variant.curve]
            seconds = [point.train_seconds for point in variant.curve]
            plot.plot(seconds, top1, "o-", color=color, label=f"{name}, tested at {variant.test_res} px")
            if variant.sweep_after:
                ends = [variant.train_seconds, variant.train_seconds + variant.finetune_seconds]
                plot.plot(ends, [top1[-1], 100 * variant.top1], "*--", color=color, label=f"{name}: fine-tuning")
    return png.getvalue()


def losses(losses: dict[str, list[float]]) -> bytes:
    """Training loss over epochs, by variant."""
    colors = variant_colors(losses)
    with axes("Training loss", "epochs", "cross entropy, label smoothing included") as (plot, png):
        for name, values in losses.items():
            plot.plot(np.arange(1, len(values) + 1), values, "-", color=colors[name], label=name)
    return png.getvalue()


def sweeps(variants: list[VariantResult]) -> bytes:
    """top1 over test resolutions, before and after fine-tuning, with the training resolution marked."""
    colors = variant_colors(variant.name for variant in variants)
    with axes("Test resolution, before and after fine-tuning", "test resolution, px", "top-1, %") as (plot, png):
        for variant in variants:
            color = colors[variant.name]
            for sweep, style, when in (
                (variant.sweep_before, "o:", "as trained"),
                (variant.sweep_after, "*-", "fine-tuned"),
            ):
                if sweep:
                    top1 = [100 * result.top1 for result in sweep]
                    label = f"{variant.name}, {when}"
                    plot.plot([result.test_res for result in sweep], top1, style, color=color, label=label)
            plot.axvline(variant.train_res, color=color, alpha=0.35, linewidth=1)
    return png.getvalue()


def stages(variants: list[VariantResult]) -> bytes:
    """How each variant's wall-clock time divides into stages."""

    def seconds(of: str) -> np.ndarray:
        return np.array([getattr(variant, of) for variant in variants])

    waiting = seconds("train_seconds") * seconds("data_wait_share")
    parts = {
        "training": seconds("train_seconds") - waiting,
        "waiting for data": waiting,
        "fine-tuning": seconds("finetune_seconds"),
        "evaluation": seconds("evaluate_seconds"),
    }
    parts["other"] = seconds("wall_seconds") - sum(parts.values())
    return stacked_bars("Time by stage", "seconds", [variant.name for variant in variants], parts)


def apparent_sizes(
    train_crop: TrainCrop, eval_crop: EvalCrop, sizes: np.ndarray, train_res: int, test_resolutions: list[int]
) -> bytes:
    """Distribution of `fixres.resolution.apparent_size` in training and at test resolutions, which are rising."""
    sizes = sizes[:: -(-len(sizes) // _MAX_IMAGES)]
    tested = [np.sort(sizes_in_testing(eval_crop, sizes, resolution)) for resolution in test_resolutions]
    largest = 1.05 * max(train_res / train_crop.scale[0] ** 0.5, tested[-1][-1])
    pixels = np.linspace(0.9 * min(train_res, tested[0][0]), largest, 300)
    title = "Apparent size of an object as large as its image"
    with axes(title, "pixels of the network's input", "share that is smaller, %") as (plot, png):
        smaller = 100 * (1 - sigma_cdf(train_crop, sizes, train_res / pixels))
        plot.plot(pixels, smaller, "k-", label=f"training at {train_res} px")
        for resolution, values, color in zip(test_resolutions, tested, shades(len(tested)), strict=True):
            # From 0 to 100 % even if all images have one shape.
            steps = np.concatenate([pixels[:1], values, pixels[-1:]])
            shares = np.concatenate([[0], np.arange(1, len(values) + 1), [len(values)]]) * (100 / len(values))
            plot.step(steps, shares, where="post", color=color, label=f"testing at {resolution} px")
    return png.getvalue()


def activation_cdfs(statistics: list[ActivationStatistics], train_res: int) -> bytes:
    """Distribution of pooled activations at each test resolution; the training resolution's in black."""
    title = "Pooled activations, the classifier's input"
    with axes(title, "activation", "share that is at most as large, %") as (plot, png):
        for one, color in zip(statistics, shades(len(statistics)), strict=True):
            shares = np.linspace(0, 100, len(one.quantiles))
            label = f"{one.test_res} px, {one.zero_share:.1%} zeros"
            plot.plot(one.quantiles, shares, color="black" if one.test_res == train_res else color, label=label)
        # Without this limit the longest tail would compress the rest to a line at the edge.
        plot.set_xlim(min(one.quantiles[0] for one in statistics), max(one.quantiles[-2] for one in statistics))
    return png.getvalue()
