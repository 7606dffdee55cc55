"""How fast data is converted, compared with FFCV's own DatasetWriter in interleaved rounds.

python -m benchmarks.loaders.conversion --data PHOTOS --num-workers 2 --json FILE

All writers store the photographs with sides of at most `--max-side` pixels at `--quality`. FFCV's writer is used as in
its documentation: a torchvision ImageFolder, RGBImageField(write_mode="jpg", max_resolution=...), IntField.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.conditions import conditions
from benchmarks.harness.datasets import RepeatedSource
from benchmarks.harness.interleaved import Rounds, Window, interleave
from benchmarks.harness.options import PhotoOptions, RoundOptions, check_least
from benchmarks.harness.records import command, record
from benchmarks.loaders.tables import conversion_table
from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.spec import InputError

_OURS = ("roc", "ffcv", "webdataset")
_THEIRS = "FFCV DatasetWriter"
_NUM_WARM_UP = 64
_NOTE = (
    "{num_images} photographs of at most {max_side} px, quality {quality}; {workers} workers each; {rounds} "
    "interleaved rounds, after a warm-up of each; medians, the ratio with its spread."
)


@dataclass(frozen=True, kw_only=True)
class ConversionOptions(PhotoOptions, RoundOptions):
    """Options of the benchmark."""

    num_workers: int = len(os.sched_getaffinity(0))
    """Worker processes of each writer; all cores by default."""
    rounds: int = 8
    work_dir: Path | None = None
    """Folder in which files are written, and removed again; the system's temporary folder if null."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, num_workers=1)

    def settings(self) -> dict[str, Any]:
        found = super().settings()
        return found | {"workers": found.pop("threads")}


def measure(options: ConversionOptions) -> dict[str, Any]:
    """Measures all rounds; returns the record."""
    sizes: dict[str, int] = {}
    environment = conditions(options.data)
    with tempfile.TemporaryDirectory(dir=options.work_dir) as name:
        place = Path(name)
        folder = _image_folder(options.data, place / "images", options.num_images)
        few = _image_folder(options.data, place / "few", min(_NUM_WARM_UP, options.num_images))

        def write(writer: str, images: Path = folder) -> Window:
            target, start = place / "out", time.perf_counter()
            _write(writer, images, target, options)
            seconds = time.perf_counter() - start
            sizes[writer] = _num_bytes(target)
            shutil.rmtree(target) if target.is_dir() else target.unlink()
            return Window(options.num_images, seconds)

        for writer in (*_OURS, _THEIRS):  # imports and compilation take seconds, which do not matter for ImageNet
            write(writer, few)

        runs = {writer: lambda writer=writer: write(writer) for writer in (*_OURS, _THEIRS)}
        rounds = interleave(runs, options.rounds, "converting", mirrored=False)
    results = [_result(writer, rounds, sizes[writer]) for writer in runs if rounds.num_rounds]
    note = _NOTE.format(**options.settings())
    return record("conversion", options.settings(), environment, note, rounds.interrupted, results=results)


def _image_folder(data: Path, folder: Path, num_images: int) -> Path:
    """The photographs as an ImageFolder of one class."""
    source = RepeatedSource(data, num_images)
    if not source.images:
        raise InputError(f"{data} is already converted; use a folder of photographs")
    (folder / "images").mkdir(parents=True)
    for index in range(len(source)):
        original = source.images[index % len(source.images)]
        (folder / "images" / f"{index:06d}{original.suffix}").symlink_to(original.resolve())
    return folder


def _write(writer: str, folder: Path, target: Path, options: ConversionOptions) -> None:
    if writer != _THEIRS:
        settings = {
            "max_side": options.max_side,
            "quality": options.quality,
            "num_workers": options.num_workers,
            "progress": False,
        }
        convert(folder, target, ConversionConfig(writer, **settings, progress=False))
        return
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter
    from torchvision.datasets import ImageFolder

    image = RGBImageField(write_mode="jpg", max_resolution=options.max_side, jpeg_quality=options.quality)
    fields = {"image": image, "label": IntField()}
    DatasetWriter(str(target), fields, num_workers=options.num_workers).from_indexed_dataset(ImageFolder(str(folder)))


def _num_bytes(target: Path) -> int:
    """Bytes on disk, without holes."""
    files = target.iterdir() if target.is_dir() else [target]
    return sum(file.stat().st_blocks * 512 for file in files)


def _result(writer: str, rounds: Rounds, num_bytes: int) -> dict[str, Any]:
    return {
        "writer": writer,
        "images_per_second": rounds.speed(writer).value,
        "rounds": rounds.speeds(writer),
        **rounds.ratio(writer, _THEIRS).as_json("speedup_over_ffcv", "speedup_over_ffcv_interval"),
        "bytes": num_bytes,
    }


main = command(ConversionOptions, __doc__, measure, conversion_table)


if __name__ == "__main__":
    run(main)
