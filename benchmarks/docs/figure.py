"""The figure of README: a crop on the blocks of its JPEG file, and the speed of the input engines."""

from __future__ import annotations

from typing import Any

from benchmarks.throughput.tables import ratio_of, strongest
from fixres.reporting.html_page import render_page

RESOLUTION = 128
"""Pixels; the training resolution of README's figures."""
_WIDTH, _HEIGHT = 840, 262
_BLOCK = 12  # pixels of the drawing for each 16 x 16 block of the JPEG file
_PICTURE = {"x": 20, "y": 48, "width": 18 * _BLOCK, "height": 14 * _BLOCK}
_CROP = {"x": 89, "y": 31, "width": 86, "height": 70}
_BARS = {"x": 280, "label": 92}
_LONGEST_BAR = 370
_BARS_HEIGHT = 160


def throughput_figure(record: dict[str, Any]) -> str:
    """An SVG for pages with a light or a dark background.

    Args:
        record: of kind "throughput", with `roc` and some engines of `COMPARED` at `RESOLUTION`.
    """
    speeds = {one["engine"]: one["images_per_second"] for one in record["results"] if one["res"] == RESOLUTION}
    environment, settings = record["environment"], record["settings"]
    names = {"roc": "roc (ours)"} | strongest(record, RESOLUTION)
    step = _BARS_HEIGHT // len(names)
    rows = [_bar(record, engine, name, speeds) for engine, name in names.items()]
    longest = max(row["speed"] for row in rows)
    for k, row in enumerate(rows):
        row |= {"y": 48 + step * k, "height": step - 10, "width": round(_LONGEST_BAR * row["speed"] / longest)}
    return render_page(
        "benchmarks.docs",
        "throughput.svg.j2",
        width=_WIDTH,
        height=_HEIGHT,
        title=f"Training crops of {RESOLUTION} px per second",
        summary=", ".join(f"{row['name']} {row['value']}" for row in rows),
        picture=_PICTURE,
        crop=_CROP,
        covered=_covered(),
        grid=_grid(),
        bars={**_BARS, "rows": rows},
        notes=[
            f"{environment['num_cores']} cores of {environment['cpu']}, {environment['gpu'] or 'no GPU'}, "
            f"{settings['threads']} threads or workers each;",
            f"photographs of at most {settings['max_side']} px; medians of {settings['rounds']} rounds; "
            f"commit {environment['commit'][:7]}",
        ],
    )


def _bar(record: dict[str, Any], engine: str, name: str, speeds: dict[str, float]) -> dict[str, Any]:
    entry = ratio_of(record, "roc", engine, RESOLUTION)
    return {
        "name": name.removeprefix("torch's "),
        "kind": "ours" if engine == "roc" else "other",
        "speed": speeds[engine],
        "value": f"{speeds[engine]:,.0f}",
        "ratio": f"roc is {entry['ratio']:.1f} times as fast" if entry else "",
    }


def _covered() -> dict[str, int]:
    """The blocks that the crop touches, as one rectangle in the picture."""
    found = {}
    for start, length in (("x", "width"), ("y", "height")):
        first = _CROP[start] // _BLOCK
        last = -(-(_CROP[start] + _CROP[length]) // _BLOCK)
        found |= {start: first * _BLOCK, length: (last - first) * _BLOCK}
    return found


def _grid() -> str:
    columns = [f"M{x} 0V{_PICTURE['height']}" for x in range(_BLOCK, _PICTURE["width"], _BLOCK)]
    return "".join(columns + [f"M0 {y}H{_PICTURE['width']}" for y in range(_BLOCK, _PICTURE["height"], _BLOCK)])
