"""report.html of the loaders: a throughput record's tables and plots."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.harness.tables import Rows
from benchmarks.throughput.tables import cold_cache_rows, ratio_of, startup_rows, warm_rows
from fixres.reporting.html_page import condition_rows, embed, write_page
from fixres.reporting.plots import COLORS, axes


def write_loader_report(content: dict[str, Any], target: Path, cores: Rows = (), cores_device: str = "") -> None:
    """Writes the page of a throughput record; `cores` is the table of loader cores for a network on `cores_device`."""
    write_page(
        target,
        "benchmarks.throughput",
        "loaders.html.j2",
        content=content,
        headline=_headline(content),
        warm=warm_rows(content),
        cold=cold_cache_rows(content),
        startup=startup_rows(content),
        figures=_figures(content),
        cores=cores,
        cores_device=cores_device,
        conditions=condition_rows(content["environment"]),
    )


def _headline(content: dict[str, Any]) -> str:
    """The first engine compared with the others, in a sentence for each resolution."""
    sentences = []
    for side in content["settings"]["res"]:
        found = [one for one in content["results"] if one["res"] == side]
        if len(found) > 1:
            first = found[0]["engine"]
            parts = [(one["engine"], ratio_of(content, first, one["engine"], side)) for one in found[1:]]
            text = ", ".join(f"{entry['ratio']:.1f} times {name}" for name, entry in parts if entry)
            sentences.append(f"{side} px: {first} delivers {found[0]['images_per_second']:.0f} images/s: {text}.")
    return " ".join(sentences)


def _figures(content: dict[str, Any]) -> list[tuple[str, str]]:
    """(title, data URL) of each plot that the record has numbers for."""
    warm, cold, found = content["results"], content["cold_cache"], []
    if warm:
        cpu, pixels = "CPU ms for each image, all threads and processes", "thousand pixels decoded for each image"
        found += [
            ("Images per second by resolution", _by_resolution(warm, "images_per_second", "images/s", "interval")),
            (f"Speed-up of {warm[0]['engine']}", _ratios(content)),
            ("CPU time", _by_resolution(warm, "cpu_seconds_per_image", cpu, "cpu_interval", 1e3)),
            ("Bytes read", _by_resolution(warm, "bytes_per_image", "KB read for each image", None, 1e-3)),
            ("Pixels decoded", _by_resolution(warm, "pixels_decoded_per_image", pixels, None, 1e-3)),
        ]
    if cold:
        label = "images/s, cold page cache"
        found.append(("Cold page cache", _by_resolution(cold, "images_per_second", label, "interval")))
    if content["startup"]:
        first_batch = "seconds from opening to the first batch"
        found.append(("Memory", _bars(content, "memory_bytes_peak", "peak memory without page cache, MB", 1e-6)))
        found.append(("First batch", _bars(content, "first_batch_seconds", first_batch, 1)))
    return found


def _engines(results: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(one["engine"] for one in results))


def _by_resolution(results: list[dict[str, Any]], key: str, label: str, interval: str | None, factor: float = 1) -> str:
    """Groups of bars, one group for each resolution; intervals as error bars."""
    known = [one for one in results if one[key] is not None]
    engines, sides = _engines(known), sorted({one["res"] for one in known})
    width = 0.8 / max(1, len(engines))
    with axes(label, "output side, px", "", legend="inside" if known else "none") as (plot, png):
        for k, engine in enumerate(engines):
            rows = [one for one in known if one["engine"] == engine]
            x = [sides.index(one["res"]) + (k - (len(engines) - 1) / 2) * width for one in rows]
            values = np.array([factor * one[key] for one in rows])
            errors = interval and _errors(values, factor * np.array([one[interval] for one in rows]))
            plot.bar(x, values, width, yerr=errors, label=engine, color=_color(results, engine), ecolor="#111111")
        plot.set_xticks(range(len(sides)), [str(side) for side in sides])
    return embed(png.getvalue())


def _errors(values: np.ndarray, intervals: ArrayLike) -> np.ndarray:
    """Lengths of error bars, (2, N)."""
    low, high = np.array(intervals).T
    return np.maximum([values - low, high - values], 0)


def _ratios(content: dict[str, Any]) -> str:
    """Speed-up of the first engine over each other, over resolutions, with intervals."""
    results = content["results"]
    sides, (first, *others) = sorted({one["res"] for one in results}), _engines(results)
    with axes(f"Speed-up of {first}", "output side, px", "times", legend="inside" if others else "none") as (plot, png):
        for k, other in enumerate(others):
            rows = [(side, entry) for side in sides if (entry := ratio_of(content, first, other, side))]
            values = np.array([entry["ratio"] for _, entry in rows])
            errors = _errors(values, [entry["interval"] for _, entry in rows])
            x = np.array([side for side, _ in rows]) + 1.5 * (k - len(others) / 2)  # so that error bars do not overlap
            plot.errorbar(x, values, errors, fmt="o-", capsize=3, label=other, color=_color(results, other))
        plot.axhline(1, color="#888888", linewidth=1)
        plot.set_ylim(bottom=0)
        plot.set_xticks(sides)
    return embed(png.getvalue())


def _bars(content: dict[str, Any], key: str, label: str, factor: float) -> str:
    """A horizontal bar for each engine's startup cost."""
    rows = content["startup"]
    names, measured = [one["engine"] for one in rows], content["results"] or content["cold_cache"] or rows
    with axes(label, "", "", legend="none") as (plot, png):
        colors = [_color(measured, name) for name in names]
        bars = plot.barh(names, [factor * one[key] for one in rows], color=colors)
        plot.bar_label(bars, fmt=lambda x: f"{x:.0f}" if x >= 100 else f"{x:.3g}", padding=3, fontsize=8)
        plot.invert_yaxis()
        plot.margins(x=0.12)
    return embed(png.getvalue())


def _color(results: list[dict[str, Any]], engine: str) -> str:
    engines = _engines(results)
    return COLORS[engines.index(engine) % len(COLORS)] if engine in engines else COLORS[-1]
