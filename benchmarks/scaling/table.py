"""The tables of docs/scaling.md: processes that train together, and what surviving costs."""

from __future__ import annotations

from typing import Any


def scaling_table(record: dict[str, Any]) -> str:
    """Markdown: speeds and losses by mode and number of processes, then the all-reduce."""
    head = [
        "mode", "processes", "images of each", "alone, images/s", "with exchange", "fed", "lost to exchange, %",
        "lost to data, %", "efficiency", "efficiency, fed",
    ]  # fmt: skip
    rows = [_speeds(one) for one in record["results"]]
    parts = [table(head, rows) if rows else "No number of processes was finished."]
    if record["interconnect"]:
        head = ["processes", "all-reduce of, MB", "ms", "bus bandwidth, GB/s"]
        parts.append(table(head, [_link(one) for one in record["interconnect"]]))
    return "\n\n".join(parts)


def _speeds(one: dict[str, Any]) -> list[str]:
    speeds = [f"{one[kind]['value']:.0f}" for kind in ("alone", "exchange", "fed")]
    lost = [_with_interval(one[f"lost_to_{cause}"], 100, 1) for cause in ("exchange", "data")]
    efficiency = [_with_interval(one[f"efficiency_{kind}"], 1, 2) for kind in ("exchange", "fed")]
    if one["processes"] == 1:
        speeds[1], efficiency = "-", ["1", "1"]
    return [one["mode"], str(one["processes"]), str(one["batch_of_each"]), *speeds, *lost, *efficiency]


def _link(one: dict[str, Any]) -> list[str]:
    bandwidth = {"value": one["bus_bytes_per_second"], "interval": one["interval"]}
    return [
        str(one["processes"]),
        f"{one['bytes'] / 1e6:.1f}",
        f"{1000 * one['seconds']:.2f}",
        _with_interval(bandwidth, 1e-9, 2),
    ]


def fault_tolerance_table(record: dict[str, Any]) -> str:
    """Markdown: what looking after a run costs each network."""
    head = [
        "network", "px", "batch", "step, ms", "its calls, us", "watching, % of the time", "state, MB", "written in, s",
        "writing, % of the time", "together, %",
    ]  # fmt: skip
    return table(head, [_fault_tolerance(one) for one in record["results"]])


def _fault_tolerance(one: dict[str, Any]) -> list[str]:
    return [
        one["name"],
        str(one["res"]),
        str(one["batch_size"]),
        f"{1000 * one['step_seconds']:.1f}",
        _with_interval(one["calls_seconds"], 1e6, 0),
        _with_interval(one["watching"], 100, 2),
        f"{one['state_bytes'] / 1e6:.1f}",
        _with_interval(one["write_seconds"], 1, 2),
        f"{100 * one['write_share']:.2f}",
        _with_interval(one["together"], 100, 2),
    ]


def _with_interval(found: dict[str, Any] | None, factor: float, digits: int) -> str:
    if found is None:
        return "-"
    value, low, high = (f"{factor * number:.{digits}f}" for number in (found["value"], *found["interval"]))
    return f"{value} ({low} to {high})"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))
