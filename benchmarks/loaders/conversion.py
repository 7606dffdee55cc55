"""How fast data is converted, against FFCV's own DatasetWriter, in turns within one run.

python -m benchmarks.loaders.conversion --data PHOTOS --workers 2 --json FILE

All write the photographs at most `--max-side` pixels, quality 90. FFCV's writer is given what its documentation
gives it: a torchvision ImageFolder, RGBImageField(write_mode="jpg", max_resolution=...), IntField.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import RepeatedSource
from benchmarks.harness.interleaved import Turns, Window, take_turns
from benchmarks.harness.records import finish, record
from pipelines.conversion.converter import convert
from pipelines.conversion.task import ConversionConfig
from pipelines.runtime.cli import Parser, output_file
from pipelines.runtime.exit_codes import run
from pipelines.spec import InputError

_OURS = ("roc", "ffcv", "webdataset")
_THEIRS = "ffcv's writer"
_NUM_WARM_UP = 64
_NOTE = (
    "{num_images} photographs to at most {max_side} px, quality 90; {workers} workers each; {rounds} rounds in turns, "
    "after a warm-up of each; medians, the ratio with its spread."
)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rounds; returns what the JSON file holds."""
    sizes: dict[str, int] = {}
    environment = conditions(options.data)
    with tempfile.TemporaryDirectory(dir=options.work_dir) as name:
        place = Path(name)
        folder = _image_folder(options, place / "images", options.num_images)
        few = _image_folder(options, place / "few", min(_NUM_WARM_UP, options.num_images))

        def write(writer: str, images: Path = folder) -> Window:
            target, start = place / "out", time.perf_counter()
            _write(writer, images, target, options)
            seconds = time.perf_counter() - start
            sizes[writer] = _num_bytes(target)
            shutil.rmtree(target) if target.is_dir() else target.unlink()
            return Window(options.num_images, seconds)

        for writer in (*_OURS, _THEIRS):  # imports and compiled code, seconds that ImageNet does not feel
            write(writer, few)

        runs = {writer: lambda writer=writer: write(writer) for writer in (*_OURS, _THEIRS)}
        with tqdm(total=options.rounds * len(runs), desc="converting", unit=" files", disable=None) as bar:
            turns = take_turns(runs, options.rounds, there_and_back=False, progress=bar.update)
    return record(
        "conversion",
        target=options.json,
        note=_NOTE.format(**vars(options)),
        settings=options,
        environment=environment,
        partial=turns.interrupted,
        results=[_result(writer, turns, sizes[writer]) for writer in runs if turns.num_rounds],
    )


def _image_folder(options: argparse.Namespace, folder: Path, num_images: int) -> Path:
    """The photographs as an ImageFolder of one class."""
    source = RepeatedSource(options.data, num_images)
    if not source.files:
        raise InputError(f"{options.data} is converted already; give a folder of photographs")
    (folder / "images").mkdir(parents=True)
    for index in range(len(source)):
        original = source.files[index % len(source.files)]
        (folder / "images" / f"{index:06d}{original.suffix}").symlink_to(original.resolve())
    return folder


def _write(writer: str, folder: Path, target: Path, options: argparse.Namespace) -> None:
    if writer != _THEIRS:
        convert(
            folder,
            target,
            ConversionConfig(writer, max_side=options.max_side, num_workers=options.workers, progress=False),
        )
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


def _result(writer: str, turns: Turns, num_bytes: int) -> dict[str, Any]:
    speed, ratio = turns.speed(writer), turns.ratio(writer, _THEIRS)
    return {
        "writer": writer,
        "images_per_second": speed.value,
        "rounds": [window.images_per_second for window in turns.rounds[writer]],
        "against_ffcv": ratio.value,
        "against_ffcv_spread": [ratio.low, ratio.high],
        "bytes": num_bytes,
    }


def _table(content: dict[str, Any]) -> str:
    lines = ["writer          images/s   against FFCV's writer       MB"]
    for result in content["results"]:
        low, high = result["against_ffcv_spread"]
        lines.append(
            f"{result['writer']:14} {result['images_per_second']:9.0f}   {result['against_ffcv']:5.2f}"
            f"  ({low:.2f} to {high:.2f})   {result['bytes'] / 1e6:7.1f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures, prints the table, writes the file."""
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (%(default)s)")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--num-images", type=int, default=1500, help="the photographs are repeated (%(default)s)")
    parser.add_argument("--max-side", type=int, default=500)
    parser.add_argument("--work-dir", type=Path, help="where files are made and removed (the system's)")
    parser.add_argument("--json", type=output_file, help="where the figures go")
    options = parser.parse_args()
    if options.rounds < 1 or options.num_images < 1:
        raise InputError("rounds and num-images must be at least 1")
    content = measure(options)
    print(_table(content))
    finish(content, options.json)


if __name__ == "__main__":
    run(main)
