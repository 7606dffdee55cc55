"""Gathers finished runs into one record: `python -m benchmarks.collect NAME RUN_FOLDER... [--note TEXT]`.

Writes benchmarks/results/NAME.json, which holds every figure that README or a document quotes, with the conditions of
each run, and prints the table as Markdown. Runs that differ in their seed only are averaged.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from fixres.report import read_report
from pipelines.console import run
from pipelines.spec import InputError
from pipelines.writing import atomic_file

RESULTS = Path(__file__).parent / "results"
VERSION = 1
_ARM_FIELDS = (
    "name", "train_res", "train_res_by_epoch", "test_res", "epochs", "top1_before_fix", "top1", "class_mean_top1",
    "train_seconds", "fix_seconds", "program_seconds", "images_per_second", "data_wait_share",
)  # fmt: skip


def record_of(report: dict[str, Any]) -> dict[str, Any]:
    """What a record keeps of a report.json: conditions, figures and sweeps, no paths of the machine."""
    arms = []
    for arm in report["arms"]:
        kept = {name: arm[name] for name in _ARM_FIELDS}
        for sweep in ("sweep_before", "sweep_after"):
            kept[sweep] = {str(point["test_res"]): point["top1"] for point in arm[sweep]}
        arms.append(kept)
    recipe = {key: value for key, value in report["recipe"].items() if key not in ("run_dir", "data")}
    environment = {key: value for key, value in report["environment"].items() if key != "command"}
    data = {key: report["data"][key] for key in ("engine", "num_train", "num_val")}
    return {"seed": recipe["seed"], "written": report["written"], "data": data, "arms": arms,
            "savings": report["savings"], "environment": environment, "recipe": recipe}  # fmt: skip


def collect(name: str, folders: list[Path], note: str) -> dict[str, Any]:
    """The record of the runs in `folders`."""
    if not folders:
        raise InputError("no run folder given")
    return {"version": VERSION, "name": name, "note": note, "runs": [record_of(read_report(path)) for path in folders]}


def table(record: dict[str, Any]) -> str:
    """A Markdown table: a row for each engine and arm, mean and standard deviation over seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    ratios: dict[str, list[float]] = defaultdict(list)
    for one in record["runs"]:
        for arm in one["arms"]:
            groups[one["data"]["engine"], arm["name"]].append(arm)
        if one["savings"]:
            ratios[one["data"]["engine"]].append(one["savings"]["train_clock_ratio"])
    lines = [
        "| engine | arm | n | trained at | tested at | top-1 before fix, % | top-1, % | class mean, % | "
        "training + fix, s | share of the baseline's clock |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (engine, name), arms in groups.items():
        first, clock = arms[0]["train_res_by_epoch"][0], [arm["train_seconds"] + arm["fix_seconds"] for arm in arms]
        trained = f"{first}" if first == arms[0]["train_res"] else f"{first} to {arms[0]['train_res']}"
        share = spread(ratios[engine], 1, 2) if name == "fast" and ratios[engine] else "1"
        cells = [engine, name, str(len(arms)), f"{trained} px", f"{arms[0]['test_res']} px"]
        cells += [spread([arm[key] for arm in arms], 100, 1) for key in ("top1_before_fix", "top1", "class_mean_top1")]
        lines.append("| " + " | ".join([*cells, spread(clock, 1, 0), share]) + " |")
    return "\n".join(lines)


def spread(values: list[float], factor: float, digits: int) -> str:
    """Mean and, of several, the standard deviation."""
    mean = f"{factor * statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {factor * statistics.stdev(values):.{digits}f}"


def main() -> None:
    """Collects, writes, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--note", default="", help="what the data was and anything odd about the machine")
    arguments = parser.parse_args()
    record = collect(arguments.name, arguments.runs, arguments.note)
    with atomic_file(RESULTS / f"{arguments.name}.json", overwrite=True) as path:
        path.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    run(main)
