"""Engine `roc`: crops cut out of .beton files at the byte level, decoded by threads without the GIL.

Files without RoC records, as FFCV writes them, are read, too: libjpeg-turbo decodes their images completely, with the
same boxes and the same resampler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import NamedTuple

import numpy as np
import torch

from fixres.pipelines.formats.beton_reader import BetonData
from fixres.pipelines.loaders.base import empty_batch, retry_next
from fixres.pipelines.loaders.delivery import Delivery, HostBuffers, batch_buffer
from fixres.pipelines.loaders.prefetch import Prefetcher
from fixres.pipelines.loaders.roc_base import RocBase
from fixres.pipelines.roc.decoder.crops import decode_samples
from fixres.pipelines.roc.layout import NUM_COUNTS, OK
from fixres.pipelines.sampling.crops import Boxes
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.spec import Batch, LoaderConfig, TrainCrop

_BATCHES_AHEAD = 3
# Samples a thread takes at a time: 4 ms of work at 128 px; submitting it takes 0.05 ms.
_CHUNK = 16


class _Work(NamedTuple):
    """A batch that is being decoded."""

    images: torch.Tensor  # uint8 (B, r, r, 3), host memory
    draws: np.ndarray  # int64 (B,), see `sampling.draws.indices_of`
    codes: np.ndarray  # int64 (B,), error codes
    counts: np.ndarray  # int64 (B, 3)
    parts: list[Future]  # the running calls that fill the arrays


class RocLoader(RocBase):
    """Cuts, decodes and resamples in one kernel; threads share the samples and prepare batches ahead."""

    decodes_on_host = True

    def __init__(self, config: LoaderConfig) -> None:
        super().__init__(config)
        self._buffers = HostBuffers()
        self._decode = sample_decoder(self._reader, isinstance(config.crop, TrainCrop), config.min_zoom)

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
        num = len(draws)
        images = batch_buffer(self._buffers, num, resolution, self.config.device)
        work = _Work(images, draws, np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64), [])
        table = self._table[indices_of(draws)]
        self._read_ahead.announce(table)
        pixels = images.numpy()
        for first in range(0, num, _CHUNK):
            part = slice(first, first + _CHUNK)
            chosen = (array[part] for array in boxes)
            arguments = (table[part], *chosen, pixels[part], work.codes[part], work.counts[part])
            if self._pool is None:
                self._decode(*arguments)
            else:
                work.parts.append(self._pool.submit(self._decode, *arguments))
        return work

    def _finish(self, work: _Work, epoch: int) -> Delivery:
        """Waits for a batch and replaces its bad samples."""
        for part in work.parts:
            part.result()
        if not len(work.draws):
            return Delivery(empty_batch(work.images.shape[1], self.config.device), 0, 0, [])
        indices, bad_samples, pixels = indices_of(work.draws), [], work.images.numpy()
        for slot in np.flatnonzero(work.codes != OK):
            filled = pixels[slot : slot + 1], work.counts[slot : slot + 1]
            indices[slot] = self._replacement(int(work.draws[slot]), epoch, *filled, bad_samples)
        num_bytes, num_pixels = self._note(indices, work.counts)
        labels = torch.from_numpy(self._reader.labels[indices])
        batch = Batch(work.images, labels, torch.from_numpy(indices))
        return Delivery(batch, num_bytes, num_pixels, bad_samples)

    def _replacement(
        self, wanted: int, epoch: int, pixels: np.ndarray, counts: np.ndarray, bad_samples: list[str]
    ) -> int:
        """Stops at a bad sample, or decodes the next good one and returns its index, depending on `on_bad`.

        Args:
            wanted: draw of the bad sample.
            epoch: of its crop.
            pixels: uint8 (1, r, r, 3), filled.
            counts: int64 (1, 3), filled.
            bad_samples: gets a line for each bad sample.
        """
        codes, resolution = np.zeros(1, np.int64), pixels.shape[1]

        def make(draw: int) -> int:
            one = np.array([draw])
            index = int(indices_of(one)[0])
            self._decode(self._table[[index]], *self._boxes(one, epoch, resolution), pixels, codes, counts)
            if codes[0] != OK:
                raise self._bad_sample(index, codes[0])
            return index

        return retry_next(make, self._candidates(wanted), self.config.on_bad, bad_samples)


def sample_decoder(reader: BetonData, inside: bool, min_zoom: float) -> Callable[..., None]:
    """Returns the function that decodes samples. Threads call it with rows of the table, fields of boxes, outputs."""
    data = reader.data
    if "roc" in reader.field_names:
        return lambda table, yxhw, flips, bicubic, *filled: decode_samples(
            data, table, yxhw, flips, bicubic, inside, min_zoom, *filled
        )
    from fixres.pipelines.roc.decoder import turbojpeg
    from fixres.pipelines.roc.decoder import whole_image as whole

    turbojpeg.load()
    own = threading.local()  # a decompressor for each thread

    def decode_whole(
        table: np.ndarray, yxhw: np.ndarray, flips: np.ndarray, bicubic: np.ndarray, *filled: np.ndarray
    ) -> None:
        if not hasattr(own, "decompressor"):
            own.decompressor = turbojpeg.Decompressor()
        whole.decode_whole_images(data, table, yxhw, flips, bicubic, inside, own.decompressor.handle, *filled)

    return decode_whole
