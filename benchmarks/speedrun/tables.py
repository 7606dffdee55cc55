"""The table of a speed run's record."""

from __future__ import annotations

from typing import Any

from benchmarks.harness.stats import spread_of
from benchmarks.harness.tables import markdown

_HEAD = ["network", "seeds", "GPUs", "tested at", "top-1, %", "training + fine-tuning, s", "of it waiting for data, s",
         "wall-clock, s", "conversion, s", "wall-clock + conversion, s", "energy, kWh"]  # fmt: skip


def speedrun_table(record: dict[str, Any]) -> str:
    """Markdown: a row for each network, means over its seeds."""
    conversion, rows = record["conversion"], [_HEAD]
    for network in dict.fromkeys(one["network"] for one in record["results"]):
        runs = [one for one in record["results"] if one["network"] == network]
        first = runs[0]

        def mean(name: str, digits: int = 0, factor: float = 1.0, runs: list[dict[str, Any]] = runs) -> str:
            return spread_of([one[name] for one in runs]).text(factor, digits)

        totals = [{"total": one["train_seconds"] + one["finetune_seconds"]} | one for one in runs]
        energy = "" if any(one["kilowatt_hours"] is None for one in runs) else mean("kilowatt_hours", 2)
        wall = spread_of([one["wall_seconds"] for one in runs]).mean
        rows.append([
            network, str(len(runs)), str(first["num_gpus"] or "none"), f"{first['test_res']} px",
            mean("top1", 2, 100.0), mean("total", runs=totals), mean("wait_seconds"), mean("wall_seconds"),
            f"{conversion['seconds']:.0f}", f"{wall + conversion['seconds']:.0f}", energy,
        ])  # fmt: skip
    notes = [f"Recipe {record['recipe']}; mean ± standard deviation over seeds."]
    if sum(one["resumed"] for one in record["results"]):
        notes.append("A run was interrupted and resumed, so its wall-clock time is too small and does not count.")
    if conversion["continued"]:
        notes.append("The conversion was interrupted and resumed, so its time does not count.")
    return "\n\n".join([markdown(rows), " ".join(notes)])
