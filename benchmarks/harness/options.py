"""Command lines of the benchmarks: options that several of them share, and how a package is run."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixres.pipelines.runtime.cli import output_file
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import check_resolution


def sides(text: str) -> list[int]:
    """A type for lists of sides in pixels, such as 128,160."""
    try:
        return [check_resolution(int(side)) for side in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be sides in pixels such as 128,160: {error}") from None


def pairs(kind: Callable[[str], Any]) -> Callable[[str], dict[int, Any]]:
    """A type for values by resolution, such as 128:12,160:4."""

    def mapping(text: str) -> dict[int, Any]:
        try:
            return {int(side): kind(value) for side, value in (part.split(":") for part in text.split(","))}
        except ValueError:
            message = f"{text!r} is not of the form resolution:value, such as 128:12,160:4"
            raise argparse.ArgumentTypeError(message) from None

    return mapping


def at_least(least: int) -> Callable[[str], int]:
    """A type for integers that are not smaller than `least`."""

    def integer(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"{value} must be at least {least}")
        return value

    return integer


def seconds(text: str) -> float:
    """A type for lengths of time."""
    value = float(text)
    if not 0 < value < float("inf"):  # a NaN fails
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return value


def names(text: str) -> list[str]:
    """A type for lists of names; each name counts once."""
    return list(dict.fromkeys(text.split(",")))


_SHARED: dict[str, dict[str, Any]] = {
    "data": {"type": Path, "help": "a folder of photographs, a .beton file or a folder of .tar shards"},
    "res": {"type": sides, "help": "sides in pixels"},
    "model": {"help": "a timm name"},
    "batch_size": {"type": at_least(2), "help": "images; BatchNorm needs two"},
    "threads": {"type": at_least(0), "help": "threads or worker processes of each engine"},
    "rounds": {"type": at_least(1), "help": "interleaved rounds"},
    "seconds": {"type": seconds, "help": "minimum length of a window"},
    "device": {"help": "auto, cpu or cuda[:n]"},
    "precision": {"choices": ("auto", "fp32", "bf16", "fp16"), "help": "number format"},
    "compile": {"choices": ("auto", "yes", "no"), "help": "torch.compile; auto: on GPUs"},
    "num_images": {"type": at_least(1), "help": "size of the data set; the images are repeated"},
    "max_side": {"type": at_least(1), "help": "of stored images, in pixels"},
    "quality": {"type": at_least(1), "help": "JPEG quality of stored images"},
    "work_dir": {"type": Path, "help": "folder for converted files, which are kept"},
    "note": {"help": "a sentence about data and machine, shown below the table"},
    "json": {"type": output_file, "help": "file for the record, such as benchmarks/results/NAME.json"},
}
WORK_DIR = Path("data/throughput")


def add_options(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    """Adds shared options: each keyword names one and gives its default; `...` makes it a required option."""
    for name, default in defaults.items():
        settings = dict(_SHARED[name])
        if default is ...:
            settings["required"] = True
        else:
            settings["default"] = default
            settings["help"] += " (%(default)s)" if default not in (None, "") else ""
        parser.add_argument(f"--{name.replace('_', '-')}", **settings)


def run_package(package: str) -> None:
    """Runs `main` of the package's module `run`, as `python -m` does; messages begin with the package's name."""
    sys.argv[0] = package
    run(lambda: importlib.import_module(f"{package}.run").main())  # imported after OpenMP is configured
