"""Engine `roc-gpu` over images that were not converted: read and scanned as engine `roc` does, decoded by the GPU.

Threads read the files, find the checkpoints of each crop in the index (`crop_index`), and copy the bytes between them.
Images without checkpoints are decoded whole by the threads, and their crops are copied to the GPU with the batch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np

from fixres.pipelines.crop_index.gpu.plan import pack_crops, plan_crops
from fixres.pipelines.loaders.delivery import Delivery
from fixres.pipelines.loaders.indexed_crops import Collected, Filled
from fixres.pipelines.loaders.prefetch import Prefetcher
from fixres.pipelines.loaders.roc_gpu import GPUBatches, Work
from fixres.pipelines.loaders.roc_indexed import Drawn, IndexedLoader
from fixres.pipelines.roc.gpu import launcher as gpu
from fixres.pipelines.roc.gpu.crop_plan import NUM_PLAN
from fixres.pipelines.roc.gpu.staging import Packed, stage_packed
from fixres.pipelines.roc.layout import BYTES, NUM_COUNTS, PIXELS
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.spec import InputError, LoaderConfig

_BATCHES_AHEAD = 3  # that threads read, and as many that the GPU decodes


class _Started(NamedTuple):
    """A batch that threads read."""

    draws: np.ndarray  # int64 (B,)
    resolution: int
    parts: list[Future[tuple[Filled, Packed]]]


class IndexedGPULoader(GPUBatches, IndexedLoader):
    """Threads read and pack chunks of each batch, the GPU decodes."""

    def __init__(self, config: LoaderConfig) -> None:
        if config.resident in ("always", "host"):
            raise InputError(
                f"resident={config.resident!r} keeps a file with RoC records, and {config.path} has none; "
                "use --resident never, or convert the data with --format roc"
            )
        self._launcher = gpu.open_launcher(config.device)
        super().__init__(config)

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        self._crops.index.refresh()  # what other processes have added
        background = Prefetcher(self._works(start, epoch, resolution), _BATCHES_AHEAD)
        try:
            yield from self._finished(background, epoch, resolution)
        finally:
            background.close()

    def _works(self, start: int, epoch: int, resolution: int) -> Iterator[Work | None]:
        """Batches whose kernels have been started; threads read the next ones."""
        waiting: deque[_Started] = deque()
        for draws in self._draws(epoch, start):
            parts = [
                self._pool.submit(self._pack, draws[part], epoch, resolution, drawn)
                for part, drawn in self._chunks(draws, epoch, resolution)
            ]
            waiting.append(_Started(draws, resolution, parts))
            if len(waiting) > _BATCHES_AHEAD:
                yield self._send(waiting.popleft())
        while waiting:
            yield self._send(waiting.popleft())

    def _pack(self, draws: np.ndarray, epoch: int, resolution: int, drawn: Drawn) -> tuple[Filled, Packed]:
        """Reads a chunk, and packs what the GPU needs of it."""
        indices = indices_of(draws)
        collected = self._crops.collect(indices, self._draw(draws, epoch, resolution, drawn), [resolution])
        packed = self._packed(indices, collected, resolution)
        packed.made.update(self._crops.whole_crops(collected, 0, resolution))
        return collected.filled, packed

    def _packed(self, indices: np.ndarray, collected: Collected, resolution: int) -> Packed:
        """The crops that are decoded from checkpoints."""
        chosen, stored = collected.chosen(0), collected.stored
        num = len(chosen.slots)
        plans, boxes = np.zeros((num, NUM_PLAN), np.int64), np.zeros((num, 4))
        codes, counts = np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64)
        files = stored.data, chosen.places, chosen.samples, stored.found.words
        how = chosen.boxes, chosen.flips, chosen.bicubic, resolution, self._crops.inside, self._crops.min_zoom
        size = plan_crops(*files, *how, plans, boxes, codes, counts)
        data = np.empty(-(-size // 4), np.uint32)
        used = pack_crops(*files, plans, codes, counts, data)
        self._crops.note(indices, collected.filled, chosen, codes, counts)
        all_plans, all_boxes = np.zeros((len(indices), NUM_PLAN), np.int64), np.ones((len(indices), 4))
        all_plans[chosen.slots], all_boxes[chosen.slots] = plans, boxes
        return Packed(all_plans, all_boxes, data.view(np.uint8)[:used], {})

    def _send(self, started: _Started) -> Work | None:
        """Waits for the threads and starts the kernels; None for the empty batch of a rank."""
        if not started.parts:
            return None
        filled, packed = zip(*(part.result() for part in started.parts), strict=True)
        indices = indices_of(started.draws)
        counts, sizes = (np.concatenate([getattr(one, name) for one in filled]) for name in ("counts", "sizes"))
        problems = {self._chunk * k + slot: line for k, one in enumerate(filled) for slot, line in one.problems.items()}
        made = self._labels(indices), indices, started.resolution, self._launcher.host_buffer
        return self._launch(stage_packed(packed, counts, *made), started.draws, sizes, problems)

    def _labels(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self._source.labels[indices], np.int64)

    def _make_again(self, work: Work, slot: int, epoch: int, bad_samples: list[str]) -> tuple[int, np.ndarray]:
        draw, resolution = int(work.draws[slot]), work.batch.images.shape[1]
        line = work.problems.get(slot) or self._crops.problem(int(indices_of(work.draws)[slot]), int(work.codes[slot]))
        pixels = np.empty((1, resolution, resolution, 3), np.uint8)
        index, one = self._replacement(draw, line, (epoch, resolution, [pixels]), bad_samples)
        work.counts[slot], work.sizes[slot] = one.counts[0], one.sizes[0]
        return index, pixels

    def _count_batch(self, work: Work, indices: np.ndarray) -> tuple[int, int]:  # noqa: ARG002
        self._note(work.sizes, work.counts)
        return int(work.counts[:, BYTES].sum()), int(work.counts[:, PIXELS].sum())
