"""Engine `roc` over images that were not converted: folders, shards, parquet, .beton files without RoC records.

Also over a `Source` that tells where its images lie, such as a `Dataset` of Hugging Face.

The first epoch scans each image for the checkpoints of its index (`crop_index`) before its crop is decoded, and writes
the index as it goes. Later epochs, and later runs, decode only what the crops need.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch

from fixres.pipelines.loaders.base import BaseLoader, empty_batch, retry_next
from fixres.pipelines.loaders.delivery import Delivery, HostBuffers, batch_buffer
from fixres.pipelines.loaders.indexed_crops import Draw, Filled, IndexedCrops, compile_aside
from fixres.pipelines.loaders.prefetch import Prefetcher
from fixres.pipelines.loaders.roc_base import RocCounters
from fixres.pipelines.loaders.views import Views, apply
from fixres.pipelines.roc.layout import BYTES, LEVEL_SHIFT, NUM_COUNTS, PIXELS
from fixres.pipelines.runtime.decoding_threads import decoding_threads
from fixres.pipelines.runtime.notices import counted, notice
from fixres.pipelines.sampling.crops import Boxes
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.sources import open_stored
from fixres.pipelines.spec import BadSampleError, Batch, LoaderConfig

_BATCHES_AHEAD = 3
_MIN_CHUNK, _MAX_CHUNK = 16, 64  # samples that a thread takes at a time; with 64 a sample takes 10 % less than with 16


class _Work(NamedTuple):
    """A batch that is being decoded."""

    buffer: torch.Tensor  # uint8 in host memory, see `views.Places`
    views: list[np.ndarray]  # uint8 (B, r, r, 3) for each view, in the buffer
    resolution: int
    draws: np.ndarray  # int64 (B,), see `sampling.draws.indices_of`
    parts: list[Future[Filled]]


class Drawn(NamedTuple):
    """Boxes that were drawn for a whole batch, which takes 3 us an image instead of 36, for images of these sizes."""

    sizes: np.ndarray  # int64 (n, 2), expected
    boxes: list[Boxes]  # of each view


class IndexedLoader(BaseLoader):
    """Threads read, scan and decode chunks of each batch, and prepare batches ahead."""

    shares_boxes = True
    decodes_on_host = makes_views = True

    def __init__(self, config: LoaderConfig) -> None:
        if self.decodes_on_host:
            compile_aside()
        self._source = open_stored(config.path) if config.source is None else config.source
        super().__init__(config, self._source.classes, len(self._source))
        self.counters: RocCounters = RocCounters()
        self.last_shifts = np.empty(0, np.int64)
        """int64 (B,): how far the sides of each sample of the last batch were halved by the inverse transform, log2."""
        self._crops = IndexedCrops(self._source, config.crop, config.min_zoom)
        self._buffers = HostBuffers()
        self._views = Views(config.crop, config.views, config.seed)
        num_workers = max(1, config.num_workers)
        self._pool = decoding_threads(num_workers, config.device)
        # Two chunks for each thread in the batches that are prepared at once, and those of a batch equally large.
        wanted = (1 + _BATCHES_AHEAD) * config.batch_size // (2 * num_workers)
        num_chunks = -(-config.batch_size // min(max(wanted, _MIN_CHUNK), _MAX_CHUNK))
        self._chunk = -(-config.batch_size // num_chunks)
        self._announce()

    def _announce(self) -> None:
        index = self._crops.index
        if index.num_known < len(index):
            notice(
                f"{self.config.path}: {counted(len(index) - index.num_known, 'image')} of {len(index)} not indexed yet;"
                f" the first epoch does it, into {index.places.written}"
            )
        elif line := index.decoded_whole():
            notice(f"{self.config.path}: {line}")

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        self._crops.index.refresh()  # what other processes have added
        works = (self._start(draws, epoch, resolution) for draws in self._draws(epoch, start))
        background = Prefetcher(works, _BATCHES_AHEAD)
        try:
            for work in background:
                yield self._finish(work, epoch)
        finally:
            background.close()

    def _start(self, draws: np.ndarray, epoch: int, resolution: int) -> _Work:
        """Hands a batch to the threads in chunks."""
        places = self._views.places(resolution, len(draws))
        buffer = batch_buffer(self._buffers, self.config.device, places.size)
        views = places.views(buffer.numpy(), len(draws))
        parts = []
        for part, drawn in self._chunks(draws, epoch, resolution):
            pixels = [view[part] for view in views]
            parts.append(self._pool.submit(self._fill, draws[part], epoch, resolution, pixels, drawn))
        return _Work(buffer, views, resolution, draws, parts)

    def _chunks(self, draws: np.ndarray, epoch: int, resolution: int) -> Iterator[tuple[slice, Drawn]]:
        """The parts of a batch that threads take, with their boxes."""
        expected = np.maximum(self._crops.index.sizes(indices_of(draws)), 1)
        boxes = self._boxes(draws, epoch, expected, resolution)
        for first in range(0, len(draws), self._chunk):
            part = slice(first, first + self._chunk)
            yield part, Drawn(expected[part], [Boxes(*(array[part] for array in one)) for one in boxes])

    def _boxes(self, draws: np.ndarray, epoch: int, sizes: np.ndarray, resolution: int) -> list[Boxes]:
        return self._views.boxes(epoch, draws, sizes, resolution)

    def _fill(
        self, draws: np.ndarray, epoch: int, resolution: int, views: list[np.ndarray], drawn: Drawn | None = None
    ) -> Filled:
        filled = self._crops.fill(indices_of(draws), self._draw(draws, epoch, resolution, drawn), views)
        if self.config.per_image is not None:
            for slot in set(range(len(draws))) - set(filled.problems):
                apply(self.config.per_image, [view[slot] for view in views])
        return filled

    def _draw(self, draws: np.ndarray, epoch: int, resolution: int, drawn: Drawn | None) -> Draw:
        """The boxes that were drawn before if the sizes are those that were expected."""

        def boxes(sizes: np.ndarray) -> list[Boxes]:
            if drawn is not None and np.array_equal(sizes, drawn.sizes):
                return drawn.boxes
            return self._boxes(draws, epoch, sizes, resolution)

        return boxes

    def _finish(self, work: _Work, epoch: int) -> Delivery:
        """Waits for a batch and replaces its bad samples."""
        filled = [part.result() for part in work.parts]
        if not filled:
            return Delivery(empty_batch(work.resolution, self.config.device, self._views), 0, 0, [])
        counts = np.concatenate([one.counts for one in filled])
        sizes = np.concatenate([one.sizes for one in filled])
        problems = {self._chunk * k + slot: line for k, one in enumerate(filled) for slot, line in one.problems.items()}
        indices, bad_samples = indices_of(work.draws), []
        for slot, line in sorted(problems.items()):
            place = slice(slot, slot + 1)
            made = epoch, work.resolution, [view[place] for view in work.views]
            indices[slot], one = self._replacement(int(work.draws[slot]), line, made, bad_samples)
            counts[place], sizes[place] = one.counts, one.sizes
        self._note(sizes, counts)
        images = self._views.images(work.buffer, work.resolution, len(indices))
        batch = Batch(images, torch.from_numpy(self._source.labels[indices]), torch.from_numpy(indices))
        return Delivery(batch, int(counts[:, BYTES].sum()), int(counts[:, PIXELS].sum()), bad_samples)

    def _replacement(
        self, wanted: int, line: str, made: tuple[int, int, list[np.ndarray]], bad_samples: list[str]
    ) -> tuple[int, Filled]:
        """Stops at a bad sample, or makes the crop of the next good one, depending on `on_bad`; returns its index.

        Args:
            wanted: draw of the bad sample.
            line: what is wrong with it.
            made: epoch and resolution of its crops, and for each view uint8 (1, r, r, 3), filled.
            bad_samples: gets a line for each bad sample.
        """

        def make(draw: int) -> tuple[int, Filled]:
            index = int(indices_of(np.array([draw]))[0])
            problem, one = line, Filled(np.ones((1, 2), np.int64), np.zeros((1, NUM_COUNTS), np.int64), {})
            if draw != wanted:
                one = self._fill(np.array([draw]), *made)
                problem = one.problems.get(0, "")
            if problem:
                raise BadSampleError(problem, index)
            return index, one

        return retry_next(make, self._candidates(wanted), self.config.on_bad, bad_samples)

    def _note(self, sizes: np.ndarray, counts: np.ndarray) -> None:
        self.last_shifts = counts[:, LEVEL_SHIFT]
        self.counters.pixels_stored += int(sizes.prod(axis=1).sum())
        for shift, num in enumerate(np.bincount(self.last_shifts)):
            self.counters.num_by_shift[shift] += int(num)

    def _release(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._crops.close()
