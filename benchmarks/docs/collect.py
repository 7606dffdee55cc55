"""Gathers finished runs into one record: `python -m benchmarks.docs.collect NAME RUN_FOLDER... [--note TEXT]`.

Writes benchmarks/results/NAME.json, which holds every figure that README or a document quotes, with the conditions of
each run, and prints the table as Markdown. Runs that differ in their seed only are averaged.
"""

from __future__ import annotations

from pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import json
from pathlib import Path
from typing import Any

from benchmarks.docs.render import RESULTS, section
from fixres.experiment.report import read_report
from pipelines.runtime.atomic_files import write_json
from pipelines.runtime.cli import Parser
from pipelines.runtime.exit_codes import run
from pipelines.spec import InputError

VERSION = 1
_VARIANT_FIELDS = (
    "name", "train_res", "train_res_by_epoch", "test_res", "epochs", "top1_before_finetune", "top1", "class_mean_top1",
    "train_seconds", "finetune_seconds", "wall_seconds", "images_per_second", "data_wait_share",
)  # fmt: skip


def record_of(report: dict[str, Any]) -> dict[str, Any]:
    """What a record keeps of a report.json: conditions, figures and sweeps, no paths of the machine."""
    variants = []
    for variant in report["variants"]:
        kept = {name: variant[name] for name in _VARIANT_FIELDS}
        for sweep in ("sweep_before", "sweep_after"):
            kept[sweep] = {str(point["test_res"]): point["top1"] for point in variant[sweep]}
        variants.append(kept)
    recipe = {key: value for key, value in report["recipe"].items() if key not in ("run_dir", "data")}
    environment = {key: value for key, value in report["environment"].items() if key != "command"}
    data = {key: report["data"][key] for key in ("engine", "num_train", "num_val")}
    return {"seed": recipe["seed"], "written": report["written"], "data": data, "variants": variants,
            "savings": report["savings"], "environment": environment, "recipe": recipe}  # fmt: skip


def collect(name: str, folders: list[Path], note: str) -> dict[str, Any]:
    """The record of the runs in `folders`."""
    if not folders:
        raise InputError("no run folder given")
    runs = [record_of(read_report(path)) for path in folders]
    return {"version": VERSION, "kind": "training", "name": name, "note": note, "runs": runs}


def main() -> None:
    """Collects, writes, prints."""
    parser = Parser(__doc__)
    parser.add_argument("name")
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--note", default="", help="what the data was and anything odd about the machine")
    parser.add_argument("--add", action="store_true", help="keep the runs that the record has")
    arguments = parser.parse_args()
    record, target = collect(arguments.name, arguments.runs, arguments.note), RESULTS / f"{arguments.name}.json"
    if arguments.add:
        earlier = json.loads(target.read_text())
        record["runs"] = earlier["runs"] + record["runs"]
        record["note"] = record["note"] or earlier["note"]
    write_json(target, record)
    print(section(record))


if __name__ == "__main__":
    run(main)
