"""The pictures of the loaders' report, each as PNG bytes, from a throughput record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness.html_page import COLORS, axes
from benchmarks.throughput.summary import ratio_of


def all_figures(content: dict[str, Any]) -> list[tuple[str, bytes]]:
    """(what it shows, PNG) of each picture that the record has numbers for."""
    warm, cold = content["results"], content["cold"]
    found = []
    if warm:
        found.append(
            ("Images a second by resolution", _by_resolution(warm, "images_per_second", "images/s", "interval"))
        )
        found.append((f"How many times faster {_first(warm)} is", _ratios(content)))
        cost = "CPU ms for each image, all threads and processes"
        found.append(("CPU time", _by_resolution(warm, "cpu_seconds_per_image", cost, "cpu_interval", 1e3)))
        found.append(("Bytes read", _by_resolution(warm, "bytes_per_image", "KB read for each image", None, 1e-3)))
        found.append(
            (
                "Pixels decoded",
                _by_resolution(warm, "pixels_decoded_per_image", "thousand pixels decoded for each image", None, 1e-3),
            )
        )
    if cold:
        found.append(
            ("Cold page cache", _by_resolution(cold, "images_per_second", "images/s, cold page cache", "interval"))
        )
    if content["opening"]:
        found.append(("Memory", _bars(content, "memory_bytes_peak", "MB beside the page cache, at most", 1e-6)))
        found.append(
            ("First batch", _bars(content, "first_batch_seconds", "seconds from opening to the first batch", 1))
        )
    return found


def _first(results: list[dict[str, Any]]) -> str:
    return results[0]["engine"]


def _engines(results: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(one["engine"] for one in results))


def _by_resolution(
    results: list[dict[str, Any]], key: str, label: str, interval: str | None, factor: float = 1
) -> bytes:
    """Groups of bars, one group for each resolution; intervals as whiskers."""
    known = [one for one in results if one[key] is not None]
    engines, sides = _engines(known), sorted({one["res"] for one in known})
    width = 0.8 / max(1, len(engines))
    with axes(label, "output side, px", "", legend=bool(known)) as (plot, png):
        for k, engine in enumerate(engines):
            rows = [one for one in known if one["engine"] == engine]
            x = [sides.index(one["res"]) + (k - (len(engines) - 1) / 2) * width for one in rows]
            values = np.array([factor * one[key] for one in rows])
            whiskers = None
            if interval is not None:
                low, high = np.array([[factor * end for end in one[interval]] for one in rows]).T
                whiskers = np.maximum([values - low, high - values], 0)
            plot.bar(x, values, width, yerr=whiskers, label=engine, color=_color(results, engine), ecolor="#111111")
        plot.set_xticks(range(len(sides)), [str(side) for side in sides])
    return png.getvalue()


def _ratios(content: dict[str, Any]) -> bytes:
    """How many times faster the first engine is than each other, over resolutions, with intervals."""
    results = content["results"]
    first, sides = _first(results), sorted({one["res"] for one in results})
    others = [engine for engine in _engines(results) if engine != first]
    with axes(f"How many times faster {first} is", "output side, px", "times", legend=bool(others)) as (plot, png):
        for k, other in enumerate(others):
            found = [(side, ratio_of(content, first, other, side)) for side in sides]
            rows = [(side, entry) for side, entry in found if entry is not None]
            values = np.array([entry["ratio"] for _, entry in rows])
            low, high = np.array([entry["interval"] for _, entry in rows]).T
            x = np.array([side for side, _ in rows]) + 1.5 * (k - len(others) / 2)  # so that whiskers do not overlap
            errors = np.maximum([values - low, high - values], 0)
            plot.errorbar(x, values, errors, fmt="o-", capsize=3, label=other, color=_color(results, other))
        plot.axhline(1, color="#888888", linewidth=1)
        plot.set_ylim(bottom=0)
        plot.set_xticks(sides)
    return png.getvalue()


def _bars(content: dict[str, Any], key: str, label: str, factor: float) -> bytes:
    rows: list[dict[str, Any]] = content["opening"]
    color: Callable[[str], str] = lambda engine: _color(content["results"] or content["cold"] or rows, engine)  # noqa: E731
    with axes(label, "", "", legend=False) as (plot, png):
        names = [one["engine"] for one in rows]
        bars = plot.barh(names, [factor * one[key] for one in rows], color=[color(name) for name in names])
        plot.bar_label(
            bars, fmt=lambda value: f"{value:.0f}" if value >= 100 else f"{value:.3g}", padding=3, fontsize=8
        )
        plot.invert_yaxis()
        plot.margins(x=0.12)
    return png.getvalue()


def _color(results: list[dict[str, Any]], engine: str) -> str:
    engines = _engines(results)
    return COLORS[engines.index(engine) % len(COLORS)] if engine in engines else COLORS[-1]
