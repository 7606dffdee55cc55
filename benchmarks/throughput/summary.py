"""A throughput record for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def as_text(content: dict[str, Any]) -> str:
    """Tables by resolution, warm and cold; opening costs; file sizes."""
    parts = [_warm(content, side) for side in content["settings"]["res"]]
    parts += [_cold(content, side) for side in content["settings"]["res"]]
    parts += [_opening(content), _files(content)]
    return "\n\n".join(part for part in parts if part)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text in columns, the first to the left, the others to the right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def ratio_of(content: dict[str, Any], one: str, other: str, resolution: int) -> dict[str, Any] | None:
    """The entry that says how many times faster `one` is than `other`."""
    for entry in content["ratios"]:
        if (entry["engine"], entry["against"], entry["res"]) == (one, other, resolution):
            return entry
    return None


def number(value: float | None, digits: int = 0, factor: float = 1.0) -> str:
    """Text of a measured number, or a dash."""
    return "-" if value is None else f"{factor * value:.{digits}f}"


def _warm(content: dict[str, Any], resolution: int) -> str:
    found = [one for one in content["results"] if one["res"] == resolution]
    if not found:
        return ""
    first = found[0]["engine"]
    rows = [
        [f"{resolution} px", "images/s", "95 %", "CPU ms/image", "KB/image", "pixels/image", f"{first} is faster by"]
    ]
    for one in found:
        low, high = one["interval"]
        row = [one["engine"], number(one["images_per_second"]), f"{low:.0f} to {high:.0f}"]
        row += [number(one["cpu_seconds_per_image"], 3, 1e3), number(one["bytes_per_image"], 1, 1e-3)]
        rows.append([*row, number(one["pixels_decoded_per_image"]), _faster(content, first, one["engine"], resolution)])
    lines = [columns(rows)]
    for one in found:
        if one["floor_share"]:
            low, high = one["floor_share_interval"]
            lines.append(
                f"floor, decoding the same crops alone: {one['floor_images_per_second']:.0f} images/s; "
                f"{one['engine']} reaches {one['floor_share']:.2f} of it ({low:.2f} to {high:.2f})"
            )
    return "\n".join(lines)


def _faster(content: dict[str, Any], one: str, other: str, resolution: int) -> str:
    entry = ratio_of(content, one, other, resolution)
    if entry is None:
        return "1"
    low, high = entry["interval"]
    return f"{entry['ratio']:.2f} ({low:.2f} to {high:.2f})"


def _cold(content: dict[str, Any], resolution: int) -> str:
    found = [one for one in content["cold"] if one["res"] == resolution]
    if not found:
        return ""
    rows = [
        [f"{resolution} px, cold", "images/s", "range", f"{found[0]['against']} is faster by", "in memory at start"]
    ]
    for one in found:
        low, high = one["interval"]
        share = f"{100 * one['resident_share']:.1f} %" + ("" if one["is_cold"] else ", not cold")
        rows.append(
            [one["engine"], number(one["images_per_second"]), f"{low:.0f} to {high:.0f}", f"{one['ratio']:.2f}", share]
        )
    return columns(rows)


def _opening(content: dict[str, Any]) -> str:
    if not content["opening"]:
        return ""
    rows = [["process of its own", "first batch, s", "memory at most, MB", "of which before opening, MB"]]
    for one in content["opening"]:
        memory = [number(one[key], 0, 1e-6) for key in ("memory_bytes_peak", "memory_bytes_before")]
        rows.append([one["engine"], number(one["first_batch_seconds"], 2), *memory])
    return columns(rows)


def _files(content: dict[str, Any]) -> str:
    sizes = content["file_bytes"]
    return "files, MB: " + ", ".join(f"{name} {size / 1e6:.1f}" for name, size in sizes.items())
