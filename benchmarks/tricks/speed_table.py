"""The table of a record of the tricks' price in the training loop."""

from __future__ import annotations

from typing import Any


def tricks_speed_table(record: dict[str, Any]) -> str:
    """Markdown: loops with tricks by load, images a second and share of the plain loop's."""
    lines = [
        "| network | batch | px | tricks | images/s | share of the plain loop's | interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for load in record["results"]:
        for one in load["loops"]:
            low, high = one["share_interval"]
            cells = [load["model"], str(load["batch_size"]), str(load["res"]), one["tricks"]]
            cells.append(f"{one['images_per_second']:.3g}")
            cells += ["1", ""] if one["tricks"] == "plain" else [f"{one['share']:.3f}", f"{low:.3f} to {high:.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
