"""ImageNet from its files to an accuracy, against the clock. docs/speedrun.md has the rules.

python -m benchmarks.speedrun --data IMAGENET --gpus 8 --seeds 1,2,3 --json benchmarks/results/speedrun.json
python -m benchmarks.speedrun --data scenes --gpus 0 --config demo --networks resnet10t    # a rehearsal

Converts both splits once, then trains, fine-tunes and tests each network with each seed in processes of its own, as
`fixres train` does. The record has the accuracy, the seconds of each stage, energy if the driver tells it, hardware and
commit. An interrupted command resumes: finished runs are kept, an unfinished one continues from its checkpoint and is
marked, because its clock does not count.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import BenchmarkOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.speedrun.energy import EnergyMeter
from benchmarks.speedrun.tables import speedrun_table
from fixres.config.parsing import parse_recipe
from fixres.experiment.report import read_report
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.datasets.resolve import resolve_data
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import GENERATED, InputError, Source

_VARIANT = "fast"
_KEPT = ("top1", "top5", "top1_before_finetune", "test_res", "epochs", "train_res_by_epoch", "train_seconds",
         "finetune_seconds", "evaluate_seconds")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SpeedrunOptions(BenchmarkOptions):
    """Options of the speed run."""

    data: str
    """ImageNet in any layout that docs/data.md lists; scenes for a rehearsal."""
    gpus: int = 1
    """GPUs of this machine, one process each; 0: a rehearsal on the CPU, in this process."""
    networks: list[str] = field(default_factory=lambda: ["resnet18", "resnet50"])
    """timm's names of the networks, each trained by the recipe."""
    seeds: list[int] = field(default_factory=lambda: [1])
    """One run for each; the rules ask for three."""
    config: str = "imagenet_rn50_16"
    """Recipe whose variant fast is trained."""
    work_dir: Path = Path("runs/speedrun")
    """Folder for the converted data and the runs."""
    note: str = ""
    """A sentence about the machine, shown below the table."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpus < 0:
            raise InputError(f"gpus={self.gpus} must be 0 (a rehearsal) or more")
        if self.data not in GENERATED and not Path(self.data).exists():
            raise InputError(f"--data {self.data} does not exist; give ImageNet in a layout that docs/data.md lists")
        if _VARIANT not in (variants := parse_recipe(["--config", self.config]).variants):
            raise InputError(f"--config {self.config}: it has no variant {_VARIANT}, only {', '.join(variants)}")

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"data": Path(self.data).name}


def measure(options: SpeedrunOptions) -> dict[str, Any]:
    """Converts and trains all networks; returns the record."""
    environment, runs = conditions(options.work_dir), []
    conversion = converted(options)
    with Interruption() as interruption:
        for network in options.networks:
            runs += [trained(options, network, seed) for seed in options.seeds]
    recipe = parse_recipe(["--config", options.config])
    return record("speedrun", options.settings(), environment, options.note, interruption.happened,
                  conversion=conversion, results=runs, recipe=recipe.name)  # fmt: skip


def converted(options: SpeedrunOptions) -> dict[str, Any]:
    """Converts both splits unless they are there; returns the seconds that it took, then or now."""
    kept = options.work_dir / "conversion.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    options.work_dir.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"seconds": 0.0, "num_images": {}, "file_bytes": 0, "continued": False}
    for split, source in _sources(options):
        done = convert(source, options.work_dir / f"{split}.beton", ConversionConfig("roc"))
        found["seconds"] += done.seconds
        found["num_images"][split] = done.num_samples
        found["file_bytes"] += done.file_bytes
        found["continued"] |= done.num_kept > 0
    write_json(kept, found)
    return found


def _sources(options: SpeedrunOptions) -> list[tuple[str, Source]]:
    """The training and test images, with the classes of the training images."""
    if options.data in GENERATED:
        made = resolve_data(options.data, options.work_dir)
        return [("train", open_source(made.train)), ("val", open_source(made.val))]
    path = Path(options.data)
    return [("train", open_source(path, "auto", "train")), ("val", open_source(path, "auto", "val", classes_from=path))]


def trained(options: SpeedrunOptions, network: str, seed: int) -> dict[str, Any]:
    """One run, or the one that finished before: accuracy, seconds by stage, energy."""
    folder = options.work_dir / f"{network}-{seed}"
    kept = folder / "speedrun.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    resumed = folder.is_dir()
    arguments = ["--config", options.config, "--variant", _VARIANT, "--model", network, "--seed", str(seed)]
    arguments += ["--data", str(options.work_dir), "--output", str(folder), "--resume", "auto"]
    start = time.perf_counter()
    with EnergyMeter() as meter:
        _train(options, arguments)
    report = read_report(folder)
    (variant,) = report["variants"]
    result = {
        "network": network,
        "seed": seed,
        "num_gpus": options.gpus,
        **{name: variant[name] for name in _KEPT if name in variant},
        "wait_seconds": variant["train_seconds"] * variant["data_wait_share"],
        "wall_seconds": time.perf_counter() - start,
        "kilowatt_hours": meter.kilowatt_hours,
        "resumed": resumed,
        "engine": report["data"]["engine"],
        "precision": report["environment"]["precision"],
        "commit": report["environment"]["commit"],
    }
    write_json(kept, result)
    return result


def _train(options: SpeedrunOptions, arguments: Sequence[str]) -> None:
    """`fixres train`, under torch's launcher if there are several GPUs."""
    if options.gpus == 0:
        from fixres.api.recipes import run_recipe

        run_recipe(parse_recipe([*arguments, "--device", "cpu"]))
        return
    launcher = [sys.executable]
    if options.gpus > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(options.gpus)]
    code = subprocess.run([*launcher, "-m", "fixres", "train", *arguments]).returncode
    if code:
        raise InputError(f"the training ended with exit code {code}, see above; the same command continues it")


main = command(SpeedrunOptions, __doc__, measure, speedrun_table)
