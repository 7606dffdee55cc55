"""Engine `roc` over RoC records: cuts crops out of .beton files, and decodes them in threads without the GIL."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch

from fixres.pipelines.loaders.base import empty_batch, retry_next
from fixres.pipelines.loaders.delivery import Delivery, HostBuffers, batch_buffer
from fixres.pipelines.loaders.prefetch import Prefetcher
from fixres.pipelines.loaders.roc_base import RocBase
from fixres.pipelines.loaders.views import Places, Views, apply, stacked
from fixres.pipelines.roc.decoder.crops import decode_views
from fixres.pipelines.roc.layout import NUM_COUNTS, OK
from fixres.pipelines.sampling.crops import Boxes
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.spec import Batch, LoaderConfig, TrainCrop

_BATCHES_AHEAD = 3
# Samples a thread takes at a time: 4 ms of work at 128 px; submitting it takes 0.05 ms.
_CHUNK = 16


class _Work(NamedTuple):
    """A batch that is being decoded."""

    buffer: torch.Tensor  # uint8 in host memory, see `views.Places`
    places: Places
    resolution: int
    draws: np.ndarray  # int64 (B,), see `sampling.draws.indices_of`
    codes: np.ndarray  # int64 (B,), error codes
    counts: np.ndarray  # int64 (B, 3)
    parts: list[Future]  # the running calls that fill the arrays


class RocLoader(RocBase):
    """Cuts, decodes and resamples in one kernel; threads share the samples and prepare batches ahead."""

    decodes_on_host = makes_views = True

    def __init__(self, config: LoaderConfig) -> None:
        super().__init__(config)
        self._buffers = HostBuffers()
        self._views = Views(config.crop, config.views, config.seed)
        self._inside = isinstance(config.crop, TrainCrop)

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        drawn = self._draw(self._draws(epoch, start), epoch, resolution)
        works = (self._start(*one, resolution) for one in drawn)
        if self._pool is None:
            yield from (self._finish(work, epoch) for work in works)
            return
        background = Prefetcher(works, _BATCHES_AHEAD)
        try:
            for work in background:
                yield self._finish(work, epoch)
        finally:
            background.close()

    def _start(self, draws: np.ndarray, boxes: Boxes, resolution: int) -> _Work:
        """Hands a batch to the threads in chunks."""
        num, places = len(draws), self._views.places(resolution, len(draws))
        buffer = batch_buffer(self._buffers, self.config.device, places.size)
        codes, counts = np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64)
        work = _Work(buffer, places, resolution, draws, codes, counts, [])
        table = self._table[indices_of(draws)]
        self._read_ahead.announce(table)
        pixels = buffer.numpy()
        for first in range(0, num, _CHUNK):
            part = slice(first, first + _CHUNK)
            chosen = Boxes(*(values[part] for values in boxes))
            arguments = table[part], chosen, pixels, places.of(first), codes[part], counts[part]
            if self._pool is None:
                self._make(*arguments)
            else:
                work.parts.append(self._pool.submit(self._make, *arguments))
        return work

    def _make(
        self,
        table: np.ndarray,
        boxes: Boxes,
        buffer: np.ndarray,
        places: Places,
        codes: np.ndarray,
        counts: np.ndarray,
    ) -> None:
        """Fills in the crops of some images and calls the user's function."""
        filled = buffer, places.starts, places.sides, codes, counts
        decode_views(self._reader.data, table, *boxes, self._inside, self.config.zoom, *filled)
        if self.config.per_image is not None:
            for image in np.flatnonzero(codes == OK):
                apply(self.config.per_image, places.crops(buffer, int(image)))

    def _boxes(self, draws: np.ndarray, epoch: int, resolution: int) -> Boxes:
        """The fields have a second axis, of views."""
        return stacked(self._views.boxes(epoch, draws, self._reader.sizes[indices_of(draws)], resolution))

    def _finish(self, work: _Work, epoch: int) -> Delivery:
        """Waits for a batch and replaces its bad samples."""
        for part in work.parts:
            part.result()
        if not len(work.draws):
            return Delivery(empty_batch(work.resolution, self.config.device, self._views), 0, 0, [])
        indices, bad_samples, pixels = indices_of(work.draws), [], work.buffer.numpy()
        for slot in np.flatnonzero(work.codes != OK).tolist():
            filled = pixels, work.places.of(slot), work.counts[slot : slot + 1]
            indices[slot] = self._replacement(int(work.draws[slot]), epoch, work.resolution, *filled, bad_samples)
        num_bytes, num_pixels = self._note(indices, work.counts)
        labels = torch.from_numpy(self._reader.labels[indices])
        images = self._views.images(work.buffer, work.resolution, len(indices))
        batch = Batch(images, labels, torch.from_numpy(indices))
        return Delivery(batch, num_bytes, num_pixels, bad_samples)

    def _replacement(
        self,
        wanted: int,
        epoch: int,
        resolution: int,
        buffer: np.ndarray,
        places: Places,
        counts: np.ndarray,
        bad_samples: list[str],
    ) -> int:
        """Stops at a bad sample, or decodes the next good one and returns its index, depending on `on_bad`.

        Args:
            wanted: draw of the bad sample.
            epoch: of its crops.
            resolution: of its crops.
            buffer, places: where they are written.
            counts: int64 (1, 3), filled.
            bad_samples: gets a line for each bad sample.
        """
        codes = np.zeros(1, np.int64)

        def make(draw: int) -> int:
            one = np.array([draw])
            index, boxes = int(indices_of(one)[0]), self._boxes(one, epoch, resolution)
            self._make(self._table[[index]], boxes, buffer, places, codes, counts)
            if codes[0] != OK:
                raise self._bad_sample(index, codes[0])
            return index

        return retry_next(make, self._candidates(wanted), self.config.on_bad, bad_samples)
