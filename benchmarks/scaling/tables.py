"""The tables of docs/scaling.md: training in several processes, and the overhead of fault tolerance."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.tables import markdown, number, with_interval


def scaling_table(record: dict[str, Any]) -> str:
    """Markdown: speeds and overheads by mode and number of processes, then the all-reduce."""
    head = ["mode", "processes", "images of each", "no sync, images/s", "with sync", "end to end", "sync overhead, %",
            "data overhead, %", "efficiency", "efficiency, end to end"]  # fmt: skip
    rows = [_speeds(one) for one in record["results"]]
    parts = [markdown([head, *rows]) if rows else "No number of processes was finished."]
    if record["interconnect"]:
        head = ["processes", "all-reduce of, MB", "ms", "bus bandwidth, GB/s"]
        parts.append(markdown([head, *map(_interconnect, record["interconnect"])]))
    return "\n\n".join(parts)


def _speeds(one: dict[str, Any]) -> list[str]:
    speeds = [number(one[kind]["value"]) for kind in ("no_sync", "sync", "end_to_end")]
    overheads = [_estimate(one[f"{cause}_overhead"], 1, 100) for cause in ("sync", "data")]
    efficiency = [_estimate(one[f"efficiency_{kind}"], 2) for kind in ("sync", "end_to_end")]
    if one["processes"] == 1:
        speeds[1], efficiency = "-", ["1", "1"]
    return [one["mode"], str(one["processes"]), str(one["batch_per_process"]), *speeds, *overheads, *efficiency]


def _interconnect(one: dict[str, Any]) -> list[str]:
    bandwidth = with_interval(one["bus_bytes_per_second"], one["interval"], 2, 1e-9)
    return [str(one["processes"]), number(one["bytes"], 1, 1e-6), number(one["seconds"], 2, 1000), bandwidth]


def fault_tolerance_table(record: dict[str, Any]) -> str:
    """Markdown: the overhead of fault tolerance for each network."""
    rows = [["network", "px", "batch", "step, ms", "its calls, us", "step overhead, %", "checkpoint, MB",
             "written in, s", "writing, % of the time", "total overhead, %"]]  # fmt: skip
    for one in record["results"]:
        rows.append(
            [
                one["name"],
                str(one["res"]),
                str(one["batch_size"]),
                number(one["step_seconds"], 1, 1000),
                _estimate(one["calls_seconds"], 0, 1e6),
                _estimate(one["step_overhead"], 2, 100),
                number(one["checkpoint_bytes"], 1, 1e-6),
                _estimate(one["write_seconds"], 2),
                number(one["write_share"], 2, 100),
                _estimate(one["total_overhead"], 2, 100),
            ]
        )
    return markdown(rows)


def _estimate(found: dict[str, Any] | None, digits: int, factor: float = 1.0) -> str:
    return "-" if found is None else with_interval(found["value"], found["interval"], digits, factor)
