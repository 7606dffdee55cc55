"""Which input engine is fastest here, and what does it cost? A table in the terminal and report.html.

python tools/bench_loaders.py                       # drawn scenes, all installed engines
python tools/bench_loaders.py --data FOLDER --out runs/loaders --cache both

DATA is a folder of photographs, a .beton file or a folder of .tar shards. Engines and options are those of
benchmarks.throughput, with smaller defaults: minutes on two cores. --model measures the training step of that network
here, for the table of loader cores; --steps takes a record of benchmarks.training.train_step instead.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.options import add_options
from benchmarks.harness.records import leave_if_partial
from benchmarks.throughput.engines import KINDS, can_run
from benchmarks.throughput.report import write_loader_report
from benchmarks.throughput.run import add_arguments, check, measure
from benchmarks.throughput.tables import as_text
from benchmarks.training.tables import train_step_rows
from benchmarks.training.train_step import quick_record
from fixres.observability.console import aligned
from fixres.pipelines.datasets.resolve import prepare_scenes
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.runtime.cli import Parser, output_folder
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sources.scenes.scene import SceneConfig
from fixres.reporting.records import read_record

_NUM_SCENES = 300
_DEFAULTS = {"res": "128,224", "rounds": 16, "cold_cache_rounds": 2, "num_images": 600, "cache": "both"}


def main() -> None:
    """Measures, prints the table, writes report.json and report.html."""
    options = _parse()
    content = measure(options)
    write_json(options.json, content)
    print(as_text(content))
    steps = None if content["partial"] or not content["results"] else _steps(options)
    cores = train_step_rows(steps, content) if steps else []
    if cores:
        print("", *aligned(cores), sep="\n")
    device = (steps["environment"]["gpu"] or steps["environment"]["cpu"]) if steps else ""
    write_loader_report(content, options.out / "report.html", cores, device)
    print(f"\n{options.out / 'report.html'}")
    leave_if_partial(content, options.json)


def _steps(options: argparse.Namespace) -> dict[str, Any] | None:
    if options.steps:
        return read_record(options.steps, "train_step")
    return quick_record(options.model, options.res) if options.model else None


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    add_options(parser, data=None)
    parser.add_argument("--out", type=output_folder, default="runs/loaders", help="folder of the report (%(default)s)")
    parser.add_argument("--model", default="resnet18", help='for the table of cores, "" for none (%(default)s)')
    parser.add_argument("--steps", type=Path, help="a record of benchmarks.training.train_step instead")
    add_arguments(parser)
    parser.set_defaults(engines=",".join(filter(can_run, _usual())), **_DEFAULTS)
    options = check(parser.parse_args())
    options.json = options.json or options.out / "report.json"
    if options.data is None:
        config = SceneConfig(num_train=_NUM_SCENES, num_val=SceneConfig.num_classes)
        options.data = prepare_scenes(config, options.work_dir) / "train"
    return options


def _usual() -> list[str]:
    """Engines for photographs; spdl is left out, because it checks for FFmpeg only when it is opened."""
    unusual = {"ffcv-raw", "dali-slice", "roc-dali", "spdl"}
    if not torch.cuda.is_available():
        unusual.add("torchvision-gpu")
    return [engine for engine in KINDS if engine not in unusual]


if __name__ == "__main__":
    run(main)
