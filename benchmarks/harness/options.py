"""Command lines of the benchmarks: options that several of them share, and how a package is run.

Each benchmark's options are a frozen dataclass that is put together from the groups here; `fixres.config.parsing` reads
it from the command line.
"""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fixres.cli.output import check_json
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError, check_resolution

if TYPE_CHECKING:
    from benchmarks.harness.datasets import BenchmarkFiles

WORK_DIR = Path("data/throughput")
_LEAST = {"rounds": 1, "batch_size": 2, "num_workers": 0, "num_images": 1, "max_side": 1, "quality": 1}
# Records keep the names that they had before the options got theirs.
_RECORD_NAMES = {"train_res": "res", "num_workers": "threads"}


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Options of every benchmark."""

    json: Path | None = None
    """JSON file for the record, such as benchmarks/results/NAME.json; - prints it instead of the table."""

    def __post_init__(self) -> None:
        check_json(self.json)
        check_least(self, **_LEAST)
        for name in ("train_res", "test_res", "sweep"):
            value = getattr(self, name, [])
            for side in [value] if isinstance(value, int) else value:
                check_resolution(side)
        for name, value in vars(self).items():
            if isinstance(value, list) and (twice := [one for one in value if value.count(one) > 1]):
                raise InputError(f"{name}: {twice[0]} is named twice")
        if getattr(self, "num_images", sys.maxsize) < getattr(self, "batch_size", 0):
            raise InputError(f"num_images={self.num_images} is less than a batch of {self.batch_size}; raise it")  # type: ignore[attr-defined]

    def settings(self) -> dict[str, Any]:
        """The options as a record keeps them, by the names in records."""
        return {_RECORD_NAMES.get(field.name, field.name): getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, kw_only=True)
class RoundOptions(BenchmarkOptions):
    """How often is measured."""

    rounds: int = 3
    """Interleaved rounds."""


@dataclass(frozen=True, kw_only=True)
class WindowOptions(RoundOptions):
    """How often and how long is measured."""

    seconds: float = 1.0
    """Minimum length of a window in seconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_seconds(self, "seconds")


@dataclass(frozen=True, kw_only=True)
class PhotoOptions(BenchmarkOptions):
    """The photographs, and how they are stored for each engine."""

    data: Path
    """A folder of photographs, a .beton file or a folder of .tar shards."""
    num_images: int = 1500
    """Size of the data set; the images are repeated."""
    max_side: int = 500
    """Longest side of a stored image in pixels."""
    quality: int = 90
    """JPEG quality of stored images."""
    work_dir: Path = WORK_DIR
    """Folder for converted files, which are kept."""

    def files(self) -> BenchmarkFiles:
        """The photographs in the format of each engine."""
        from benchmarks.harness.datasets import BenchmarkFiles

        return BenchmarkFiles(self.data, self.work_dir, self.num_images, self.max_side, self.quality)


@dataclass(frozen=True, kw_only=True)
class ComputeOptions(BenchmarkOptions):
    """What computes, and in which number format."""

    device: str = "auto"
    """auto, cpu or cuda[:n]."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format."""


@dataclass(frozen=True, kw_only=True)
class StepOptions(ComputeOptions):
    """How a training step computes."""

    batch_size: int = 32
    """Images of a batch; BatchNorm needs two."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """torch.compile; auto: on GPUs."""


def check_least(options: Any, **least: float) -> None:
    """Raises InputError if an option, where there is one, is smaller than its least value."""
    for name, smallest in least.items():
        value = getattr(options, name, None)
        if value is not None and value < smallest:
            raise InputError(f"{name}={value} must be at least {smallest}")


def check_seconds(options: Any, name: str) -> None:
    """Raises InputError unless a length of time is above 0."""
    if not getattr(options, name) > 0:
        raise InputError(f"{name}={getattr(options, name)} must be above 0")


def run_package(package: str) -> None:
    """Runs `main` of the package's module `run`, as `python -m` does; messages begin with the package's name."""
    sys.argv[0] = package
    run(lambda: importlib.import_module(f"{package}.run").main())  # imported after OpenMP is configured
