"""Line charts as SVG, for pages with a light or a dark background."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fixres.reporting.html_page import render_page

_WIDTH, _HEIGHT = 840, 400
_PLOT = {"left": 62, "top": 48, "right": 600, "bottom": 330}  # in pixels of the drawing
_NUM_TICKS = 6
NUM_COLORS = 6
"""Classes line0 to line5 of the template."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: in the legend; empty for a line that belongs to the one before.
        points: (x, y, low, high), x rising; low and high are the ends of an interval, equal to y without one.
        color: 0 to 5.
        dashed: instead of a solid line.
        joined: False draws the points alone.
    """

    name: str
    points: Sequence[tuple[float, float, float, float]]
    color: int
    dashed: bool = False
    joined: bool = True


def line_chart(title: str, x: str, y: str, lines: Sequence[Line], notes: Sequence[str], log_x: bool = False) -> str:
    """The chart with its legend and lines of notes below; `log_x` spaces x by its logarithm."""
    points = [point for line in lines for point in line.points]
    forward = math.log if log_x else float
    ticks_x = _log_ticks(points) if log_x else _ticks([one[0] for one in points])
    ticks_y = _ticks([value for one in points for value in one[2:]])
    low_x, high_x = (forward(end(one[0] for one in points)) for end in (min, max))
    margin = 0.04 * (high_x - low_x or 1.0)

    def place_x(value: float) -> float:
        share = (forward(value) - low_x + margin) / (high_x - low_x + 2 * margin)
        return round(_PLOT["left"] + share * (_PLOT["right"] - _PLOT["left"]), 1)

    def place_y(value: float) -> float:
        share = (value - ticks_y[0]) / (ticks_y[-1] - ticks_y[0])
        return round(_PLOT["bottom"] - share * (_PLOT["bottom"] - _PLOT["top"]), 1)

    drawn = [
        {
            "name": line.name,
            "color": line.color,
            "dashed": line.dashed,
            "joined": line.joined,
            "points": [(place_x(one[0]), *map(place_y, one[1:])) for one in line.points],
        }
        for line in lines
    ]
    seen = [value for value in ticks_x if low_x - margin <= forward(value) <= high_x + margin]
    return render_page(
        "benchmarks.docs",
        "line_chart.svg.j2",
        width=_WIDTH,
        height=_HEIGHT + 16 * len(notes),
        title=title,
        x=x,
        y=y,
        plot=_PLOT,
        ticks_x=[(place_x(value), f"{value:g}") for value in seen],
        ticks_y=[(place_y(value), f"{value:g}") for value in ticks_y],
        lines=drawn,
        legend=[line for line in drawn if line["name"]],
        notes=notes,
    )


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers that enclose the values, at most about `_NUM_TICKS`."""
    low, high = min(values), max(values)
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-9)))
    step = next(step * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5) if (high - low) / (step * factor) <= _NUM_TICKS)
    first, last = math.floor(low / step), max(math.ceil(high / step), math.floor(low / step) + 1)
    return [round(k * step, 10) for k in range(first, last + 1)]


def _log_ticks(points: Sequence[tuple[float, float, float, float]]) -> list[float]:
    low, high = min(one[0] for one in points), max(one[0] for one in points)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
