"""report.html of the loaders: a throughput record's tables and pictures, and how many cores would feed a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.docs.render import train_step_table
from benchmarks.harness.html_page import conditions_of, embed, write_page
from benchmarks.throughput.figures import all_figures
from benchmarks.throughput.summary import number, ratio_of


def write_loader_report(content: dict[str, Any], target: Path, steps: dict[str, Any] | None = None) -> None:
    """Writes the page.

    Args:
        content: a throughput record of version 2.
        target: the HTML file.
        steps: a train_step record, for the feeding table.
    """
    write_page(
        target,
        "loaders.html.j2",
        content=content,
        headline=_headline(content),
        warm=[_warm(content, one) for one in content["results"]],
        cold=[_cold(one) for one in content["cold"]],
        opening=[_opening(content, one) for one in content["opening"]],
        figures=[(title, embed(png)) for title, png in all_figures(content)],
        feeding=cells_of(train_step_table(steps, content)) if steps and content["results"] else [],
        feeding_device=(steps["environment"]["gpu"] or steps["environment"]["cpu"]) if steps else "",
        conditions=conditions_of(content),
    )


def cells_of(markdown: str) -> list[list[str]]:
    """A Markdown table's cells, heading first."""
    lines = [line for line in markdown.splitlines() if not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def _headline(content: dict[str, Any]) -> str:
    """The first engine against the others, in a sentence for each resolution."""
    sentences = []
    for side in content["settings"]["res"]:
        found = [one for one in content["results"] if one["res"] == side]
        if len(found) > 1:
            first = found[0]["engine"]
            parts = [(one["engine"], ratio_of(content, first, one["engine"], side)) for one in found[1:]]
            text = ", ".join(f"{entry['ratio']:.1f} times {name}" for name, entry in parts if entry)
            sentences.append(f"{side} px: {first} delivers {found[0]['images_per_second']:.0f} images/s: {text}.")
    return " ".join(sentences)


def _warm(content: dict[str, Any], one: dict[str, Any]) -> list[str]:
    first = content["results"][0]["engine"]
    entry = ratio_of(content, first, one["engine"], one["res"])
    ratio = "1" if entry is None else f"{entry['ratio']:.2f} ({entry['interval'][0]:.2f} to {entry['interval'][1]:.2f})"
    low, high = one["interval"]
    return [
        str(one["res"]),
        one["engine"],
        number(one["images_per_second"]),
        f"{low:.0f} to {high:.0f}",
        ratio,
        number(one["cpu_seconds_per_image"], 3, 1e3),
        number(one["bytes_per_image"], 1, 1e-3),
        number(one["pixels_decoded_per_image"]),
    ]


def _cold(one: dict[str, Any]) -> list[str]:
    low, high = one["interval"]
    state = f"{100 * one['resident_share']:.1f} %" + ("" if one["is_cold"] else ": not cold")
    ratio = "1" if one["engine"] == one["against"] else f"{one['ratio']:.2f}"
    return [str(one["res"]), one["engine"], number(one["images_per_second"]), f"{low:.0f} to {high:.0f}", ratio, state]


def _opening(content: dict[str, Any], one: dict[str, Any]) -> list[str]:
    memory = [number(one[key], 0, 1e-6) for key in ("memory_bytes_peak", "memory_bytes_before")]
    size = content["file_bytes"].get(one["engine"])
    return [one["engine"], number(one["first_batch_seconds"], 2), *memory, number(size, 1, 1e-6)]
