"""Time of engine `roc-dali` for each image, step by step: cutting, queue, DALI's decoding, its resize.

python -m benchmarks.loaders.dali_stages --data FILE.beton|PHOTOS --train-res 128,160,224 [--device cuda] [--json FILE]

Cutting is timed alone, on one thread. The queue is the time of a DALI pipeline that is fed and decodes nothing.
Decoding and resizing are what longer graphs add to it, on `--num-workers` threads, so on the CPU their times are those
of as many cores. For a GPU the host does only the first two steps. Crops are those of training, RandomResizedCrop at
scale (0.08, 1). The steps are measured in interleaved rounds; the table shows medians.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from timeit import timeit
from typing import Any

import numpy as np
from nvidia.dali import Pipeline
from tqdm import trange

from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import PhotoOptions, RoundOptions, check_least
from benchmarks.harness.records import Interruption, command, record
from benchmarks.loaders.tables import dali_stages_table
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.loaders.base import check_device
from fixres.pipelines.loaders.dali import common as dali
from fixres.pipelines.loaders.dali import roc as roc_dali
from fixres.pipelines.loaders.dali.cutter import Cutter
from fixres.pipelines.loaders.dali.feed import Fed, Feed
from fixres.pipelines.loaders.prefetch import Prefetcher
from fixres.pipelines.roc.layout import BYTES, PIXELS
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sampling.crops import Boxes, crop_boxes
from fixres.pipelines.sampling.order import batches
from fixres.pipelines.spec import InputError, LoaderConfig, TrainCrop

_STEPS = ("cut", "queue", "decode", "resize")
_AHEAD = 3  # batches, as in the engine
_EPOCHS = 6


class Stage:
    """A DALI pipeline of the engine's first operators."""

    def __init__(self, config: LoaderConfig, num_operators: int) -> None:
        self._feed, self._num_operators = Feed(), num_operators
        self._config = config
        self._pipeline: Pipeline = dali.build_pipeline(config, self._graph, prefetch=config.dali.prefetch)

    def _graph(self) -> tuple:
        node, *numbers = roc_dali.input_nodes(self._feed, inside=True)
        if self._num_operators == 0:
            return (node.shape(), *numbers)
        node = roc_dali.decoded_node(node, self._config)
        return (roc_dali.resized_node(node, numbers, inside=True),) if self._num_operators > 1 else (node, *numbers)

    def seconds(self, jobs: list[Fed]) -> float:
        """Time for all jobs, which a thread puts into a queue."""
        background = Prefetcher(jobs, _AHEAD)
        start = time.perf_counter()
        self._feed.start(iter(background))
        for _ in dali.run_to_end(self._pipeline):
            self._feed.in_flight.popleft()
        seconds = time.perf_counter() - start
        background.close()
        return seconds


class DaliStages:
    """The engine's steps on one RoC file, timed at one resolution after another."""

    def __init__(self, config: LoaderConfig) -> None:
        check_device(config)
        self._config, self._reader = config, open_beton(config.path)
        if "roc" not in self._reader.field_names:
            raise InputError(f"{config.path} has no RoC records; convert the data with --format roc")
        self._table = locate_samples(self._reader)
        self._cutter = Cutter(self._reader.data, True, config.zoom, None)
        self._stages = [Stage(config, num_operators) for num_operators in range(3)]

    def measure(self, resolution: int, rounds: int) -> dict[str, Any]:
        """Microseconds for each image of every step in each round, and the mean size of a cut."""
        drawn = list(self._draw(resolution))
        jobs, bytes_cut, pixels, padding = self._cut_all(drawn, resolution)
        num = sum(len(indices) for indices, _ in drawn)
        taken: dict[str, list[float]] = {step: [] for step in _STEPS}
        # The first round warms up.
        for number in trange(rounds + 1, desc=f"{resolution} px", leave=False, disable=None):
            cut = timeit(lambda: self._cut(drawn, resolution), number=1)
            queue, decode, resize = (stage.seconds(jobs) for stage in self._stages)
            if number:
                for step, seconds in zip(_STEPS, (cut, queue, decode - queue, resize - decode), strict=True):
                    taken[step].append(seconds / num * 1e6)
        size = {"bytes_per_image": bytes_cut / num, "pixels_per_image": pixels / num, "padding": padding}
        return {"res": resolution, "num_images": num, "microseconds": taken, **size}

    def _draw(self, resolution: int) -> Iterator[tuple[np.ndarray, Boxes]]:
        config = self._config
        for epoch in range(_EPOCHS):
            for indices in batches(config, len(self._reader), epoch):
                chosen = crop_boxes(config.crop, config.seed, epoch, indices, self._reader.sizes[indices], resolution)
                yield indices, chosen._replace(yxhw=chosen.yxhw.astype(np.float64))

    def _cut(self, drawn: list, resolution: int) -> None:
        for indices, boxes in drawn:
            self._cutter.cut(self._table[indices], boxes.yxhw, resolution)

    def _cut_all(self, drawn: list, resolution: int) -> tuple[list[Fed], int, int, float]:
        """Jobs; bytes and pixels of all cuts; size of the arrays relative to those bytes."""
        all_cuts = [self._cutter.cut(self._table[indices], boxes.yxhw, resolution) for indices, boxes in drawn]
        jobs = [
            Fed(cuts.encoded, roc_dali.graph_numbers(cuts, boxes.flip, boxes.bicubic, resolution, True))
            for cuts, (_, boxes) in zip(all_cuts, drawn, strict=True)
        ]
        num_bytes, num_pixels = (sum(int(cuts.counts[:, k].sum()) for cuts in all_cuts) for k in (BYTES, PIXELS))
        room = sum(row.size for cuts in all_cuts for row in cuts.encoded)
        return jobs, num_bytes, num_pixels, room / num_bytes


@dataclass(frozen=True, kw_only=True)
class DaliStagesOptions(PhotoOptions, RoundOptions):
    """Options of the benchmark."""

    train_res: list[int] = field(default_factory=lambda: [128, 160, 224])
    """Sides of the training crops in pixels."""
    num_workers: int = 1
    """Threads of DALI."""
    batch_size: int = 256
    """Images of a batch."""
    device: str = "cpu"
    """Where DALI decodes: cpu or cuda[:n]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least(self, num_workers=1)


def measure(options: DaliStagesOptions) -> dict[str, Any]:
    """Measures all resolutions; returns the record."""
    path = options.data
    if not path.is_file():
        path = options.files().path("roc")
    batching = {"batch_size": options.batch_size, "shuffle": True, "drop_last": True}
    config = LoaderConfig(path, TrainCrop(), 128, num_workers=options.num_workers, device=options.device, **batching)
    stages, environment, results = DaliStages(config), conditions(path), []
    with Interruption() as interruption:
        for resolution in options.train_res:
            results.append(stages.measure(resolution, options.rounds))
    note = f"{options.num_workers} threads; {options.rounds} interleaved rounds."
    return record("dali_stages", options.settings(), environment, note, interruption.happened, results=results)


main = command(DaliStagesOptions, __doc__, measure, dali_stages_table)


if __name__ == "__main__":
    run(main)
