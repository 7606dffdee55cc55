"""The report's pictures, each as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fixres.evaluation.activations import ActivationStatistics
from fixres.experiment.results import VariantResult
from fixres.resolution.apparent_size import sigma_cdf, sizes_in_testing
from pipelines.spec import EvalCrop, TrainCrop

_MAX_IMAGES = 2000  # in a picture of distributions; more would not be seen
VARIANT_COLORS = {
    "baseline": "#555555",
    "fast": "#c2410c",
    "large": "#555555",
    "small": "#0369a1",
    "progressive": "#c2410c",
}


@contextmanager
def picture(title: str, x: str, y: str, below: bool = False) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes to draw on, and the buffer that holds the PNG once the block ends.

    Args:
        title: above.
        x: what the horizontal axis shows.
        y: what the vertical axis shows.
        below: put a long legend below the axes, in two columns.
    """
    # Figure instead of pyplot: no global state, no display, and its import is what costs, not its use.
    figure = Figure(figsize=(5.6, 4.6 if below else 3.6), layout="constrained")
    axes = figure.subplots()
    png = io.BytesIO()
    yield axes, png
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if below:
        axes.legend(frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    else:
        axes.legend(frameon=False)
    figure.savefig(png, dpi=130)


def curves(variants: list[VariantResult]) -> bytes:
    """top1 at each variant's test resolution against the training clock; the fix as a last, dashed step."""
    with picture("Accuracy against the training clock", "seconds of training (and fix)", "top-1, %") as (axes, png):
        for variant in variants:
            seconds = [point.train_seconds for point in variant.curve]
            top1 = [100 * point.top1 for point in variant.curve]
            axes.plot(
                seconds,
                top1,
                "o-",
                color=VARIANT_COLORS[variant.name],
                label=f"{variant.name}, tested at {variant.test_res} px",
            )
            if variant.sweep_after:
                end = [variant.train_seconds, variant.train_seconds + variant.finetune_seconds]
                axes.plot(
                    end,
                    [top1[-1], 100 * variant.top1],
                    "*--",
                    color=VARIANT_COLORS[variant.name],
                    label=f"{variant.name}: the fix",
                )
    return png.getvalue()


def losses(variants: list[VariantResult], epochs: dict[str, list[float]]) -> bytes:
    """Training loss over epochs."""
    with picture("Training loss", "epochs", "cross entropy, label smoothing included") as (axes, png):
        for variant in variants:
            values = epochs[variant.name]
            axes.plot(
                np.arange(1, len(values) + 1), values, "-", color=VARIANT_COLORS[variant.name], label=variant.name
            )
    return png.getvalue()


def sweeps(variants: list[VariantResult]) -> bytes:
    """top1 over test resolutions, before and after the fix, with the training resolution marked."""
    with picture("Test resolution, before and after the fix", "test resolution, px", "top-1, %") as (axes, png):
        for variant in variants:
            color = VARIANT_COLORS[variant.name]
            for results, style, when in (
                (variant.sweep_before, "o:", "as trained"),
                (variant.sweep_after, "*-", "finetuned"),
            ):
                if results:
                    resolutions = [result.test_res for result in results]
                    top1 = [100 * result.top1 for result in results]
                    axes.plot(resolutions, top1, style, color=color, label=f"{variant.name}, {when}")
            axes.axvline(variant.train_res, color=color, alpha=0.35, linewidth=1)
    return png.getvalue()


def stages(variants: list[VariantResult]) -> bytes:
    """Where each variant's program time went."""
    names = [variant.name for variant in variants]
    parts = {
        "training": np.array([variant.train_seconds * (1 - variant.data_wait_share) for variant in variants]),
        "waiting for data": np.array([variant.train_seconds * variant.data_wait_share for variant in variants]),
        "finetune": np.array([variant.finetune_seconds for variant in variants]),
        "tests": np.array([variant.evaluate_seconds for variant in variants]),
    }
    parts["other"] = np.array([variant.wall_seconds for variant in variants]) - sum(parts.values())
    with picture("Time by stage", "seconds", "", below=True) as (axes, png):
        left = np.zeros(len(variants))
        for (label, seconds), color in zip(parts.items(), plot_colors(), strict=True):
            axes.barh(names, seconds, left=left, label=label, color=color, height=0.55)
            left += seconds
        axes.invert_yaxis()
    return png.getvalue()


def apparent_sizes(
    train_crop: TrainCrop, eval_crop: EvalCrop, sizes: np.ndarray, train_res: int, test_resolutions: list[int]
) -> bytes:
    """Distribution of apparent sizes (`fixres.resolution.apparent_size`) in training and at some test resolutions.

    Args:
        train_crop: scale and ratio of RandomResizedCrop.
        eval_crop: the center crop.
        sizes: integers (N, 2), height and width of images in pixels.
        train_res: training resolution in pixels.
        test_resolutions: rising, in pixels.
    """
    sizes = sizes[:: -(-len(sizes) // _MAX_IMAGES)]
    tested = [np.sort(sizes_in_testing(eval_crop, sizes, resolution)) for resolution in test_resolutions]
    largest = 1.05 * max(train_res / train_crop.scale[0] ** 0.5, tested[-1][-1])
    pixels = np.linspace(0.9 * min(train_res, tested[0][0]), largest, 300)
    with picture(
        "Apparent size of an object as large as its image", "pixels of the network's input", "share that is smaller, %"
    ) as (axes, png):
        smaller = 100 * (1 - sigma_cdf(train_crop, sizes, train_res / pixels))
        axes.plot(pixels, smaller, "k-", label=f"training at {train_res} px")
        for resolution, values, color in zip(test_resolutions, tested, _shades(len(tested)), strict=True):
            # From 0 to 100 % even if all images have one shape.
            steps = np.concatenate([pixels[:1], values, pixels[-1:]])
            shares = np.concatenate([[0], np.arange(1, len(values) + 1), [len(values)]]) * (100 / len(values))
            axes.step(steps, shares, where="post", color=color, label=f"testing at {resolution} px")
    return png.getvalue()


def activation_cdfs(statistics: list[ActivationStatistics], train_res: int) -> bytes:
    """Distribution of pooled activations at each test resolution; the training resolution's in black."""
    with picture("Pooled activations, the classifier's input", "activation", "share that is at most as large, %") as (
        axes,
        png,
    ):
        for one, color in zip(statistics, _shades(len(statistics)), strict=True):
            shares = np.linspace(0, 100, len(one.quantiles))
            label = f"{one.test_res} px, {one.zero_share:.1%} zeros"
            axes.plot(one.quantiles, shares, color="black" if one.test_res == train_res else color, label=label)
        # The longest of long tails would leave the rest a line at the edge.
        axes.set_xlim(min(one.quantiles[0] for one in statistics), max(one.quantiles[-2] for one in statistics))
    return png.getvalue()


def _shades(num: int) -> list[tuple[float, float, float, float]]:
    """`num` colors in rising order, dark to light, that stay apart in gray print."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.1 + 0.75 * k / max(num - 1, 1)) for k in range(num)]


def plot_colors() -> tuple[str, ...]:
    """Five colors that stay apart in gray print."""
    return ("#1e3a5f", "#d97706", "#4d7c0f", "#94a3b8", "#e2e8f0")


def contact_sheet(images: np.ndarray, scale: int = 1) -> bytes:
    """A row of crops at their true size times `scale`: uint8 (num, r, r, 3) to PNG."""
    from PIL import Image

    num, side = images.shape[:2]
    sheet = np.full((side, num * (side + 4) - 4, 3), 255, np.uint8)
    for i, image in enumerate(images):
        sheet[:, i * (side + 4) : i * (side + 4) + side] = image
    picture, png = Image.fromarray(sheet), io.BytesIO()
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(png, "PNG")
    return png.getvalue()
