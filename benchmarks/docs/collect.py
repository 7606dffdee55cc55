"""Collects finished runs in one record: `python -m benchmarks.docs.collect NAME RUN_FOLDER... [--note TEXT]`.

Writes benchmarks/results/NAME.json, which holds every number of those runs that README or a document quotes, with the
conditions of each run, and prints the table as Markdown. Runs that differ only in their seed are averaged.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.docs.render import section
from benchmarks.harness.records import RESULTS
from benchmarks.training.run_record import record_of
from fixres.config.parsing import parse
from fixres.experiment.report import read_report
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.exit_codes import run
from fixres.reporting.records import VERSION, read_record


def collect(name: str, folders: list[Path], note: str) -> dict[str, Any]:
    """The record of the runs in `folders`."""
    runs = [record_of(read_report(path)) for path in folders]
    return {"version": VERSION, "kind": "training", "name": name, "note": note, "runs": runs}


@dataclass(frozen=True)
class CollectOptions:
    """Which runs, and the record."""

    name: str = field(metadata={"positional": True})
    """Of the record, without .json."""
    runs: list[Path] = field(metadata={"positional": True})
    """Run folders."""
    note: str = ""
    """A sentence about data and machine, shown below the table."""
    add: bool = False
    """Keep the runs that are in the record already."""


def main() -> None:
    """Collects, writes, prints."""
    options = parse(CollectOptions, sys.argv[1:], __doc__)
    record, target = collect(options.name, options.runs, options.note), RESULTS / f"{options.name}.json"
    if options.add:
        earlier = read_record(target, "training")
        record["runs"] = earlier["runs"] + record["runs"]
        record["note"] = record["note"] or earlier["note"]
    write_json(target, record)
    print(section(record))


if __name__ == "__main__":
    run(main)
