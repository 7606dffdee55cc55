"""What an index of untouched images costs: `fixres index`, and the first epoch that writes it, against whole decoding.

python -m benchmarks.loaders.indexing --data PHOTOS --train-res 128 --json FILE

One thread; CPU time of that thread, in interleaved rounds. `decode` is libjpeg-turbo's decoding of whole files alone.
`whole` is an epoch that decodes whole files with it, with the same boxes and the same resampler. `first epoch` scans,
writes the index and decodes crops, `second epoch` reads the index.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from benchmarks.harness.conditions import conditions
from benchmarks.harness.interleaved import Window, interleave
from benchmarks.harness.options import BenchmarkOptions, RoundOptions
from benchmarks.harness.records import command, record
from benchmarks.loaders.tables import indexing_table
from fixres.pipelines.crop_index.checkpoints import INDEXED
from fixres.pipelines.crop_index.index import CropIndex
from fixres.pipelines.crop_index.location import NAME
from fixres.pipelines.crop_index.store import join
from fixres.pipelines.loaders.indexed_crops import Draw, IndexedCrops
from fixres.pipelines.roc.decoder.turbojpeg import Decompressor, load
from fixres.pipelines.roc.decoder.whole_image import decode_whole_images
from fixres.pipelines.roc.layout import IMAGE_HEIGHT, IMAGE_START, NUM_COUNTS, NUM_SAMPLE_COLUMNS, OK
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.sources import open_folder, open_source
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.spec import TrainCrop

_CHUNK = 16
_NOTE = (
    "{num_images} files as they are; one thread, CPU time; {rounds} interleaved rounds; medians with 95 % intervals."
)


@dataclass(frozen=True, kw_only=True)
class IndexingOptions(RoundOptions, BenchmarkOptions):
    """Options of the benchmark."""

    data: Path
    """A folder of baseline JPEG files; others are left out."""
    num_images: int = 400
    """Files that are used, the first ones."""
    train_res: int = 128
    """Side of the crops in pixels."""
    rounds: int = 15


class _Work:
    """The ways to read the images of a folder, each on this thread."""

    def __init__(self, source: FilesSource, sizes: np.ndarray, resolution: int) -> None:
        load()
        self.source, self._sizes, self._decompressor = source, sizes, Decompressor()
        self._out = np.empty((_CHUNK, resolution, resolution, 3), np.uint8)
        self._chunks = [np.arange(k, min(k + _CHUNK, len(source))) for k in range(0, len(source), _CHUNK)]

    def _draw(self, indices: np.ndarray) -> Draw:
        return lambda sizes: [crop_boxes(TrainCrop(), 0, 0, indices, sizes, self._out.shape[1])]

    def decode(self) -> None:
        for index in range(len(self.source)):
            simplejpeg.decode_jpeg(self.source.read(index), "RGB", fastdct=False, fastupsample=False)

    def index(self) -> None:
        found = CropIndex(self.source)
        for chunk in self._chunks:
            found.find(chunk, found.stamps(chunk), *join([self.source.read(one) for one in chunk.tolist()]))
        found.finish()

    def whole(self) -> None:
        for chunk in self._chunks:
            data, spans = join([self.source.read(one) for one in chunk.tolist()])
            table, boxes = (
                np.zeros((len(chunk), NUM_SAMPLE_COLUMNS), np.int64),
                self._draw(chunk)(self._sizes[chunk])[0],
            )
            table[:, IMAGE_START : IMAGE_START + 2], table[:, IMAGE_HEIGHT:] = spans, self._sizes[chunk]
            codes, counts = np.zeros(len(chunk), np.int64), np.zeros((len(chunk), NUM_COUNTS), np.int64)
            how = (
                boxes.yxhw.astype(np.float64)[:, None],
                boxes.flip[:, None],
                boxes.bicubic[:, None],
                True,
                self._decompressor.handle,
            )
            places = self._out.reshape(-1), np.zeros(1, np.int64), np.array(self._out.shape[1:2])
            decode_whole_images(data, table, *how, *places, codes, counts)
            assert (codes == OK).all()

    def epoch(self) -> None:
        crops = IndexedCrops(self.source, TrainCrop(), None)
        for chunk in self._chunks:
            filled = crops.fill(chunk, self._draw(chunk), [self._out[: len(chunk)]])
            assert not filled.problems
        crops.close()


def measure(options: IndexingOptions) -> dict[str, Any]:
    """Measures all rounds; returns the record."""
    environment = conditions(options.data)
    with tempfile.TemporaryDirectory() as name:
        source, sizes = _copies(options, Path(name))
        work, place = _Work(source, sizes, options.train_res), source.path / NAME

        def timed(task: Callable[[], None], fresh: bool) -> Window:
            if fresh:
                place.unlink(missing_ok=True)
            elif not place.exists():
                work.index()
            start = time.thread_time()
            task()
            return Window(len(source), time.thread_time() - start)

        tasks = {
            "decode": (work.decode, False), "fixres index": (work.index, True), "whole": (work.whole, False),
            "first epoch": (work.epoch, True), "second epoch": (work.epoch, False),
        }  # fmt: skip
        runs = {name: lambda one=one: timed(*one) for name, one in tasks.items()}
        for run_once in runs.values():  # compiles the kernels
            run_once()
        rounds = interleave(runs, options.rounds, "indexing", mirrored=False)
        work.index()
        shares = {
            "index_bytes": place.stat().st_size,
            "image_bytes": sum(len(source.read(k)) for k in range(len(source))),
        }
    results = [
        {"name": name, "cpu_us_per_image": 1e6 / rounds.speed(name).value}
        | rounds.ratio("decode", name).as_json("against_decode", "against_decode_interval")
        | rounds.ratio("whole", name).as_json("against_whole", "against_whole_interval")
        for name in runs
        if rounds.num_rounds
    ]
    note = _NOTE.format(num_images=len(source), rounds=options.rounds)
    settings = options.settings()
    return record("indexing", settings, environment, note, rounds.interrupted, results=results, **shares)


def _copies(options: IndexingOptions, place: Path) -> tuple[FilesSource, np.ndarray]:
    """Copies of the first baseline files as class folders, and their sizes, int64 (n, 2)."""
    from fixres.pipelines.crop_index.checkpoints import HEIGHT, KIND, WIDTH, scan

    source, sizes = open_source(options.data), []
    (place / "images").mkdir()
    for index in range(len(source)):
        image = source.read(index)
        sample, _ = scan(image)
        if sample[KIND] == INDEXED and len(sizes) < options.num_images:
            (place / "images" / f"{index:06d}.jpg").write_bytes(image)
            sizes.append(sample[[HEIGHT, WIDTH]])
    return open_folder(place), np.array(sizes)


main = command(IndexingOptions, __doc__, measure, indexing_table)


if __name__ == "__main__":
    from fixres.pipelines.runtime.exit_codes import run

    run(main)
