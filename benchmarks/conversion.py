"""How fast data is converted, against FFCV's own DatasetWriter, in turns within one run.

python -m benchmarks.conversion --data PHOTOS --workers 2 --json FILE

All write the photographs at most `--max-side` pixels, quality 90. FFCV's writer is given what its documentation
gives it: a torchvision ImageFolder, RGBImageField(write_mode="jpg", max_resolution=...), IntField.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.files import RepeatedSource
from benchmarks.throughput import environment
from pipelines.console import run
from pipelines.convert import convert
from pipelines.spec import InputError
from pipelines.writing import atomic_file

_OURS = ("roc", "ffcv", "webdataset")
_THEIRS = "ffcv's writer"
_NOTE = (
    "{num_images} photographs to at most {max_side} px, quality 90; {workers} workers each; {rounds} rounds in turns, "
    "medians (lowest to highest)."
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds; returns what the JSON file holds."""
    speeds: dict[str, list[float]] = {name: [] for name in (*_OURS, _THEIRS)}
    sizes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=options.work_dir) as name:
        place = Path(name)
        folder = _image_folder(options, place / "images")
        for number in range(options.rounds):
            names = list(speeds)
            for writer in names[number % len(names) :] + names[: number % len(names)]:
                target, start = place / "out", time.perf_counter()
                _write(writer, folder, target, options)
                speeds[writer].append(options.num_images / (time.perf_counter() - start))
                sizes[writer] = _num_bytes(target)
                shutil.rmtree(target) if target.is_dir() else target.unlink()
    return {
        "version": 1,
        "kind": "conversion",
        "name": options.json.stem if options.json else "conversion",
        "note": _NOTE.format(**vars(options)),
        "results": [_result(name, rounds, speeds[_THEIRS], sizes[name]) for name, rounds in speeds.items()],
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()},
        "environment": environment(),
    }


def _image_folder(options: argparse.Namespace, folder: Path) -> Path:
    """The photographs as an ImageFolder of one class."""
    source = RepeatedSource(options.data, options.num_images)
    (folder / "images").mkdir(parents=True)
    for index in range(len(source)):
        original = source.files[index % len(source.files)]
        (folder / "images" / f"{index:06d}{original.suffix}").symlink_to(original.resolve())
    return folder


def _write(writer: str, folder: Path, target: Path, options: argparse.Namespace) -> None:
    if writer != _THEIRS:
        convert(folder, target, writer, max_side=options.max_side, num_workers=options.workers, progress=False)
        return
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    fields = {
        "image": RGBImageField(write_mode="jpg", max_resolution=options.max_side, jpeg_quality=90),
        "label": IntField(),
    }
    DatasetWriter(str(target), fields, num_workers=options.workers).from_indexed_dataset(ImageFolder(str(folder)))


def _num_bytes(target: Path) -> int:
    """Bytes on disk, without holes."""
    files = target.iterdir() if target.is_dir() else [target]
    return sum(file.stat().st_blocks * 512 for file in files)


def _result(name: str, rounds: list[float], theirs: list[float], num_bytes: int) -> dict[str, Any]:
    ratios = [one / other for one, other in zip(rounds, theirs, strict=True)]
    return {
        "writer": name,
        "images_per_second": statistics.median(rounds),
        "rounds": rounds,
        "against_ffcv": statistics.median(ratios),
        "against_ffcv_spread": [min(ratios), max(ratios)],
        "bytes": num_bytes,
    }


def _table(record: dict[str, Any]) -> str:
    lines = ["writer          images/s   against FFCV's writer       MB"]
    for result in record["results"]:
        low, high = result["against_ffcv_spread"]
        lines.append(
            f"{result['writer']:14} {result['images_per_second']:9.0f}   {result['against_ffcv']:5.2f}"
            f"  ({low:.2f} to {high:.2f})   {result['bytes'] / 1e6:7.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, writes the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-images", type=int, default=3000, help="the photographs are repeated (%(default)s)")
    parser.add_argument("--max-side", type=int, default=500)
    parser.add_argument("--work-dir", type=Path, help="where files are made and removed (the system's)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    if options.rounds < 1 or options.num_images < 1:
        raise InputError("rounds and num-images must be at least 1")
    record = measure(options)
    print(_table(record))
    if options.json:
        with atomic_file(options.json, overwrite=True) as file:
            file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
