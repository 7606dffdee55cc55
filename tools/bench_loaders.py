"""Which input engine is fastest here, and what does it cost? A table in the terminal and report.html.

python tools/bench_loaders.py                       # drawn scenes, all installed engines
python tools/bench_loaders.py --data FOLDER --output runs/loaders --cache both

DATA is a folder of photographs, a .beton file or a folder of .tar shards. Engines and options are those of
benchmarks.throughput, with smaller defaults: minutes on two cores. --model measures the training step of that network
here, for the table of loader cores; --step-record takes a record of benchmarks.training.train_step instead.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.harness.records import leave_if_partial
from benchmarks.throughput.engines import KINDS, can_run
from benchmarks.throughput.report import write_loader_report
from benchmarks.throughput.run import ThroughputOptions, measure
from benchmarks.throughput.tables import as_text
from benchmarks.training.tables import train_step_rows
from benchmarks.training.train_step import quick_record
from fixres.cli.output import STDOUT, put_json
from fixres.config.parsing import parse
from fixres.observability.console import aligned
from fixres.pipelines.datasets.resolve import prepare_scenes
from fixres.pipelines.runtime.atomic_files import check_target, write_json
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sources.scenes.scene import SceneConfig
from fixres.reporting.records import read_record

_NUM_SCENES = 300


def _usual() -> list[str]:
    """Engines for photographs; spdl is left out, because it checks for FFmpeg only when it is opened."""
    unusual = {"ffcv-raw", "dali-slice", "roc-gpu", "roc-dali", "dali-dynamic", "spdl"}
    if not torch.cuda.is_available():
        unusual.add("torchvision-gpu")
    return [engine for engine in KINDS if engine not in unusual]


@dataclass(frozen=True, kw_only=True)
class LoaderReportOptions(ThroughputOptions):
    """Options of the comparison."""

    data: Path | None = None
    """A folder of photographs, a .beton file or a folder of .tar shards; drawn scenes if null."""
    output: Path = Path("runs/loaders")
    """Folder of the report."""
    model: str = "resnet18"
    """Network for the table of loader cores, whose training step is measured here; "" for none."""
    step_record: Path | None = None
    """A record of benchmarks.training.train_step for that table instead."""
    engines: list[str] = field(default_factory=lambda: list(filter(can_run, _usual())))
    train_res: list[int] = field(default_factory=lambda: [128, 224])
    rounds: int = 16
    cold_cache_rounds: int = 2
    num_images: int = 600
    cache: Literal["warm", "cold", "both"] = "both"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_target(self.output, folder=True)


def main() -> None:
    """Measures, prints the table, writes report.json and report.html."""
    options = parse(LoaderReportOptions, sys.argv[1:], __doc__)
    if options.data is None:
        config = SceneConfig(num_train=_NUM_SCENES, num_val=SceneConfig.num_classes)
        options = replace(options, data=prepare_scenes(config, options.work_dir) / "train")
    content, kept = measure(options), options.output / "report.json"
    write_json(kept, content)
    steps = None if content["partial"] or not content["results"] else _steps(options)
    cores = train_step_rows(steps, content) if steps else []
    device = (steps["environment"]["gpu"] or steps["environment"]["cpu"]) if steps else ""
    page = options.output / "report.html"
    write_loader_report(content, page, cores, device)
    if options.json != STDOUT:
        print(as_text(content), *(["", *aligned(cores)] if cores else []), "", page, sep="\n")
    put_json(options.json, content)
    leave_if_partial(content, kept)


def _steps(options: LoaderReportOptions) -> dict[str, Any] | None:
    if options.step_record:
        return read_record(options.step_record, "train_step")
    return quick_record(options.model, options.train_res) if options.model else None


if __name__ == "__main__":
    run(main)
