"""The tables of a throughput record, for documents, terminal and page."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.harness.tables import Rows, markdown, number, span, with_interval
from fixres.observability.console import aligned


def throughput_table(content: dict[str, Any]) -> str:
    """Markdown: engines by resolution, images/s and the speed-up of the first engine."""
    resolutions, first = content["settings"]["res"], content["settings"]["engines"][0]
    head = ["engine", "KB read"]
    for side in resolutions:
        head += [f"{side} px, images/s", f"speed-up of {first}"]
    rows = [head]
    for engine in content["settings"]["engines"]:
        row = [result for result in content["results"] if result["engine"] == engine]
        if not row:
            continue  # interrupted before its first round, or measured with a cold page cache only
        read = [result["bytes_per_image"] for result in row]
        cells = [engine, "-" if None in read else " / ".join(number(value, 0, 1e-3) for value in read)]
        for result in row:
            cells += [number(result["images_per_second"]), _speedup(content, first, engine, result["res"], 1)]
        rows.append(cells + ["-"] * (len(head) - len(cells)))
    return markdown(rows)


COMPARED = {
    "FFCV": ("ffcv",),
    "DALI": ("dali", "dali-dynamic"),
    "torch's DataLoader": ("torchvision", "simplejpeg", "torchcodec"),
    "TurboLoader": ("turboloader",),
}
"""The kinds of pipelines that README compares with `roc`, and the engines of each."""


def strongest(content: dict[str, Any], resolution: int) -> dict[str, str]:
    """The fastest engine of each kind of `COMPARED` in a record, and the name of its kind."""
    speeds = {one["engine"]: one["images_per_second"] for one in content["results"] if one["res"] == resolution}
    found = {}
    for kind, engines in COMPARED.items():
        measured = [engine for engine in engines if engine in speeds]
        if measured:
            found[max(measured, key=speeds.__getitem__)] = kind
    return found


def throughput_summary(content: dict[str, Any], resolution: int = 128) -> str:
    """README's sentence: how many times as fast `roc` is as the strongest pipelines, in training."""
    found = {
        name: ratio_of(content, "roc", engine, resolution) for engine, name in strongest(content, resolution).items()
    }
    *first, last = [f"{entry['ratio']:.1f} times as fast as {name}" for name, entry in found.items() if entry]
    return f"At {resolution} px, engine `roc` is **{', '.join(first)}, and {last}**."


def as_text(content: dict[str, Any]) -> str:
    """All tables for the terminal."""
    tables = (warm_rows(content), cold_cache_rows(content), startup_rows(content))
    return "\n\n".join("\n".join(aligned(rows)) for rows in tables if len(rows) > 1)


def ratio_of(content: dict[str, Any], one: str, other: str, resolution: int) -> dict[str, Any] | None:
    """The entry that says how many times as fast `one` is as `other`; None if the record has none."""
    wanted = (one, other, resolution)
    found = (entry for entry in content["ratios"] if (entry["engine"], entry["against"], entry["res"]) == wanted)
    return next(found, None)


def _speedup(content: dict[str, Any], one: str, other: str, resolution: int, digits: int) -> str:
    entry = ratio_of(content, one, other, resolution)
    return "1" if entry is None else with_interval(entry["ratio"], entry["interval"], digits)


def warm_rows(content: dict[str, Any]) -> Rows:
    """A row for each engine and resolution with a warm page cache."""
    results = content["results"]
    first = results[0]["engine"] if results else ""
    head = ["engine", "px", "images/s", "95 % interval", f"speed-up of {first}", "share of decode-only bound",
            "CPU ms/image", "KB/image", "pixels/image"]  # fmt: skip
    return [head, *(_warm(content, first, one) for one in sorted(results, key=lambda one: one["res"]))]


def _warm(content: dict[str, Any], first: str, one: dict[str, Any]) -> list[str]:
    share = one["decode_bound_share"]
    return [
        one["engine"],
        str(one["res"]),
        number(one["images_per_second"]),
        span(one["interval"]),
        _speedup(content, first, one["engine"], one["res"], 2),
        "-" if share is None else with_interval(share, one["decode_bound_share_interval"], 2),
        number(one["cpu_seconds_per_image"], 3, 1e3),
        number(one["bytes_per_image"], 1, 1e-3),
        number(one["pixels_decoded_per_image"]),
    ]


def cold_cache_rows(content: dict[str, Any]) -> Rows:
    """A row for each engine and resolution with a cold page cache."""
    first = content["cold_cache"][0]["against"] if content["cold_cache"] else ""
    head = ["engine", "px, cold page cache", "images/s", "range", f"speed-up of {first}", "cached at start"]
    return [head, *map(_cold, content["cold_cache"])]


def _cold(one: dict[str, Any]) -> list[str]:
    state = f"{100 * one['resident_share']:.1f} %" + ("" if one["is_cold"] else ", not cold")
    ratio = "1" if one["engine"] == one["against"] else number(one["ratio"], 2)
    speeds = [number(one["images_per_second"]), span(one["interval"])]
    return [one["engine"], str(one["res"]), *speeds, ratio, state]


def startup_rows(content: dict[str, Any]) -> Rows:
    """A row for each engine: time to the first batch, memory, size of its files."""
    rows = [["engine", "first batch, s", "peak memory, MB", "before opening, MB", "files, MB"]]
    for one in content["startup"]:
        memory = [number(one[key], 0, 1e-6) for key in ("memory_bytes_peak", "memory_bytes_before")]
        size = number(content["file_bytes"].get(one["engine"]), 1, 1e-6)
        rows.append([one["engine"], number(one["first_batch_seconds"], 2), *memory, size])
    return rows


def first_batch_table(record: dict[str, Any]) -> str:
    """Markdown: seconds from the start of Python to the first batch, and how many times those of fixres.Loader."""
    rows = [["what is run", "s", "CPU s", "over fixres.Loader"]]
    for one in record["results"]:
        times = [number(median(one[key]), 2) for key in ("seconds", "cpu_seconds")]
        rows.append([one["program"], *times, with_interval(one["ratio"], one["ratio_interval"], 2)])
    if compiled := record["compilation"]:
        times = [number(compiled[key], 1) for key in ("seconds", "cpu_seconds")]
        rows.append(["fixres.Loader, kernels compiled from nothing", *times, "-"])
    return markdown(rows)
