"""The host's work for engine `roc-gpu`: microseconds of CPU time for each crop, one thread, without a GPU.

python -m benchmarks.loaders.gpu_staging --data FILE.beton|PHOTOS --train-res 128,160,224 [--json FILE]

"pack" plans a batch and copies headers, lengths and rows of its crops into one buffer; "resident" only plans it, for a
file that is in the GPU's memory; "plan" is the kernel in both. "roc" is what engine roc does for the same crops, also
on one thread. Two bounds: "lines" reads one byte of each cache line of the same rows, by NumPy, and "memcpy" copies as
many bytes that lie one behind the other. The buffer is ordinary memory; pinned memory is no different for the CPU.
Crops are those of training, RandomResizedCrop at scale (0.08, 1). All are measured in interleaved rounds; the table
shows medians.
"""

from __future__ import annotations

from fixres.pipelines.runtime.openmp import configure_openmp

if __name__ == "__main__":
    configure_openmp()  # before torch is imported

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from timeit import timeit
from typing import Any

import numpy as np
import torch
from tqdm import trange

from benchmarks.harness.conditions import conditions
from benchmarks.harness.options import PhotoOptions, RoundOptions
from benchmarks.harness.records import Interruption, command, record
from benchmarks.loaders.tables import gpu_staging_table
from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.gpu.crop_plan import COLUMNS, DATA, INDEX, INDEX_COLUMNS, NUM_PLAN, ROWS, plan_crops
from fixres.pipelines.roc.gpu.staging import Stager
from fixres.pipelines.roc.layout import BYTES, NUM_COUNTS
from fixres.pipelines.roc.sample_table import locate_samples
from fixres.pipelines.runtime.exit_codes import run
from fixres.pipelines.sampling.crops import Boxes, crop_boxes
from fixres.pipelines.sampling.order import batches
from fixres.pipelines.spec import MIN_TRAIN_ZOOM, InputError, LoaderConfig, TrainCrop

_EPOCHS, _CACHE_LINE = 3, 64


class HostWork:
    """The crops of some epochs of a RoC file, in batches."""

    def __init__(self, config: LoaderConfig) -> None:
        self._config, self._reader = config, open_beton(config.path)
        if "roc" not in self._reader.field_names:
            raise InputError(f"{config.path} has no RoC records; convert the data with --format roc")
        self._table, self._buffer = locate_samples(self._reader), torch.empty(0, dtype=torch.uint8)
        made = (self._reader.data, True, MIN_TRAIN_ZOOM, self._allocate, None)
        self._pack, self._resident = Stager(*made), Stager(*made, is_resident=True)

    def _allocate(self, num_bytes: int) -> torch.Tensor:
        """The same memory for each batch, as a cache of pinned memory gives it."""
        if len(self._buffer) < num_bytes:
            self._buffer = torch.zeros(2 * num_bytes, dtype=torch.uint8)
        return self._buffer[:num_bytes]

    def measure(self, resolution: int, rounds: int) -> dict[str, Any]:
        """Microseconds of CPU time for each crop in each round, and the mean bytes of a crop."""
        drawn = [
            (indices, chosen._replace(yxhw=chosen.yxhw.astype(np.float64)))
            for epoch in range(_EPOCHS)
            for indices in batches(self._config, len(self._reader), epoch)
            for chosen in [crop_boxes(TrainCrop(), 0, epoch, indices, self._reader.sizes[indices], resolution)]
        ]
        num, (lines, sizes) = sum(len(indices) for indices, _ in drawn), self._bounds(drawn, resolution)
        steps: dict[str, Callable[[], int]] = {
            "pack": lambda: self._stage(self._pack, drawn, resolution),
            "resident": lambda: self._stage(self._resident, drawn, resolution),
            "plan": lambda: self._plan(drawn, resolution),
            "lines": lambda: sum(len(self._reader.data.take(places)) for places in lines),
            "memcpy": lambda: self._copy(sizes),
            "roc": lambda: self._decode(drawn, resolution),
        }
        taken: dict[str, list[float]] = {step: [] for step in steps}
        # The first round warms up.
        for number in trange(rounds + 1, desc=f"{resolution} px", leave=False, disable=None):
            for step, work in steps.items():
                seconds = timeit(work, timer=time.thread_time, number=1)
                if number:
                    taken[step].append(seconds / num * 1e6)
        num_bytes = steps["pack"]()
        return {"res": resolution, "num_images": num, "microseconds": taken, "bytes_per_image": num_bytes / num}

    def _stage(self, stager: Stager, drawn: list, resolution: int) -> int:
        """Stages all batches; returns the bytes of their crops."""
        total, labels = 0, self._reader.labels
        for indices, chosen in drawn:
            arrays = (self._table[indices], chosen, np.asarray(labels[indices], np.int64), indices)
            total += int(stager.stage(*arrays, resolution).counts[:, BYTES].sum())
        return total

    def _plan(self, drawn: list, resolution: int) -> int:
        """Only the kernel that plans a batch; returns the bytes of the crops."""
        return sum(int(self._planned(*one, resolution)[1][:, BYTES].sum()) for one in drawn)

    def _planned(self, indices: np.ndarray, chosen: Boxes, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        """Plans and counts of a batch, see `plan_crops`."""
        num, table = len(indices), self._table[indices]
        plans, boxes, codes = np.empty((num, NUM_PLAN), np.int64), np.empty((num, 4)), np.empty(num, np.int64)
        counts = np.empty((num, NUM_COUNTS), np.int64)
        wanted = (self._reader.data, table, *chosen, resolution, True, MIN_TRAIN_ZOOM)
        plan_crops(*wanted, plans, boxes, codes, counts)
        return plans, counts

    def _bounds(self, drawn: list, resolution: int) -> tuple[list[np.ndarray], list[int]]:
        """For each batch positions in the file, one in each cache line of its rows, and the bytes of its crops."""
        lines, sizes = [], []
        for indices, chosen in drawn:
            plans, counts = self._planned(indices, chosen, resolution)
            lines.append(np.concatenate([np.arange(*run, _CACHE_LINE) for plan in plans for run in self._rows(plan)]))
            sizes.append(int(counts[:, BYTES].sum()))
        return lines, sizes

    def _rows(self, plan: np.ndarray) -> Iterator[tuple[int, int]]:
        """Where each row of segments of a crop begins and ends in the file."""
        columns, start = int(plan[INDEX_COLUMNS]), int(plan[DATA])
        stored = self._reader.data[plan[INDEX] : plan[INDEX] + 2 * columns * (plan[ROWS] - 1) + 2 * plan[COLUMNS]]
        ends = np.cumsum(stored.view("<u2"), dtype=np.int64) + start
        for row in range(plan[ROWS]):
            first = columns * row
            yield int(ends[first - 1]) if row else start, int(ends[first + plan[COLUMNS] - 1])

    def _copy(self, sizes: list[int]) -> int:
        """Copies as many bytes as the crops of each batch have, from all over the file."""
        data, starts = self._reader.data, np.linspace(0, 1, len(sizes))
        for size, start in zip(sizes, starts, strict=True):
            at = int(start * (len(data) - size))
            self._allocate(size).numpy()[:] = data[at : at + size]
        return sum(sizes)

    def _decode(self, drawn: list, resolution: int) -> int:
        """Engine roc's work on the same batches."""
        out = np.empty((self._config.batch_size, resolution, resolution, 3), np.uint8)
        codes = np.empty(len(out), np.int64)
        counts = np.empty((len(out), NUM_COUNTS), np.int64)
        for indices, chosen in drawn:
            table = self._table[indices]
            decode_samples(self._reader.data, table, *chosen, True, MIN_TRAIN_ZOOM, out, codes, counts)
        return int(codes.sum())


@dataclass(frozen=True, kw_only=True)
class GPUStagingOptions(PhotoOptions, RoundOptions):
    """Options of the benchmark."""

    train_res: list[int] = field(default_factory=lambda: [128, 160, 224])
    """Sides of the training crops in pixels."""
    batch_size: int = 256
    """Images of a batch."""


def measure(options: GPUStagingOptions) -> dict[str, Any]:
    """Measures all resolutions; returns the record."""
    path = options.data
    if not path.is_file():
        path = options.files().path("roc")
    config = LoaderConfig(path, TrainCrop(), 128, batch_size=options.batch_size, shuffle=True, drop_last=True)
    work, environment, results = HostWork(config), conditions(path), []
    with Interruption() as interruption:
        for resolution in options.train_res:
            results.append(work.measure(resolution, options.rounds))
    note = f"CPU time of one thread; {options.rounds} interleaved rounds; no GPU."
    return record("gpu_staging", options.settings(), environment, note, interruption.happened, results=results)


main = command(GPUStagingOptions, __doc__, measure, gpu_staging_table)


if __name__ == "__main__":
    run(main)
