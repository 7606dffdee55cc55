"""Plots and image sheets as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#c2410c", "#1e3a5f", "#4d7c0f", "#d97706", "#7c3aed", "#0e7490", "#be185d", "#64748b", "#a16207", "#334155")
"""For lines and bars in order; the first stands out."""
REFERENCE_COLOR = "#555555"
"""For what the others are compared with."""
_STACK_COLORS = ("#1e3a5f", "#d97706", "#4d7c0f", "#94a3b8", "#e2e8f0")  # distinguishable in gray print


@contextmanager
def axes(
    title: str, x: str, y: str, legend: Literal["inside", "below", "none"] = "inside"
) -> Iterator[tuple[Axes, io.BytesIO]]:
    """Axes to draw on, and the buffer that holds the PNG after the block.

    A legend "below" the plot has two columns, for long texts.
    """
    # Figure instead of pyplot: no global state, no display.
    figure = Figure(figsize=(5.8, 4.6 if legend == "below" else 3.7), layout="constrained")
    plot, png = figure.subplots(), io.BytesIO()
    yield plot, png
    plot.set(title=title, xlabel=x, ylabel=y)
    plot.grid(alpha=0.3)
    plot.spines[["top", "right"]].set_visible(False)
    if legend == "below":
        plot.legend(frameon=False, fontsize="small", ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    elif legend == "inside":
        plot.legend(frameon=False, fontsize="small")
    figure.savefig(png, dpi=130)


def stacked_bars(title: str, x: str, names: Sequence[str], parts: Mapping[str, np.ndarray]) -> bytes:
    """A horizontal bar for each of N `names`, the first on top, of up to five `parts`: label to lengths (N,)."""
    with axes(title, x, "", legend="below") as (plot, png):
        left = np.zeros(len(names))
        for (label, lengths), color in zip(parts.items(), _STACK_COLORS, strict=False):
            plot.barh(names, lengths, left=left, label=label, color=color, height=0.55)
            left += lengths
        plot.invert_yaxis()
    return png.getvalue()


def shades(num: int) -> list[tuple[float, float, float, float]]:
    """`num` RGBA colors from dark to light, distinguishable in gray print."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.1 + 0.75 * k / max(num - 1, 1)) for k in range(num)]


def contact_sheet(images: np.ndarray, scale: int = 1) -> bytes:
    """Images side by side: uint8 (N, H, W, 3) to PNG, each pixel `scale` pixels large."""
    num, height, width = images.shape[:3]
    sheet = np.full((height, num * (width + 4) - 4, 3), 255, np.uint8)
    for i, image in enumerate(images):
        sheet[:, i * (width + 4) : i * (width + 4) + width] = image
    return enlarged(sheet, scale)


def enlarged(image: np.ndarray, scale: int = 1) -> bytes:
    """uint8 (H, W, 3) to PNG, each pixel `scale` pixels large."""
    from PIL import Image

    picture, png = Image.fromarray(image), io.BytesIO()
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(
        png, "PNG", optimize=True
    )
    return png.getvalue()
