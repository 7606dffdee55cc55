"""Engine `roc`: crops cut out of .beton files at the byte level, decoded without the GIL in threads.

Files without RoC records, as stock FFCV writes them, are read too: their JPEG images are decoded whole by
libjpeg-turbo, with the same boxes and the same resampler.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch

from pipelines.beton import BetonReader
from pipelines.beton_parts import BetonParts, open_beton
from pipelines.boxes import boxes
from pipelines.loaders.background import Background
from pipelines.loaders.base import BaseLoader, Delivery, empty_batch, make_good
from pipelines.loaders.staging import Staging
from pipelines.order import batches
from pipelines.roc.decode import decode_samples
from pipelines.roc.layout import ERRORS, MAX_SHIFT, OK
from pipelines.roc.places import BYTES, LEVEL_SHIFT, NUM_COUNTS, PIXELS, places_of
from pipelines.roc.read_ahead import ReadAhead
from pipelines.spec import BadSampleError, Batch, Counters, LoaderConfig, TrainCrop

_BATCHES_AHEAD = 3
_DRAWN_AT_ONCE = 1024  # samples whose boxes are drawn together: 1 us each instead of 6
# Samples a thread takes at a time: at 128 px 4 ms of work, against 0.05 ms for handing it out.
_CHUNK = 16


@dataclass
class RocCounters(Counters):
    """Counters that also tell what was saved."""

    pixels_stored: int = 0
    """Pixels of the samples' images at full size: what an engine that decodes whole images decodes."""
    num_by_shift: list[int] = field(default_factory=lambda: [0] * (MAX_SHIFT + 1))
    """How many samples came from the level with 2**shift times fewer pixels a side."""


class _Work(NamedTuple):
    """A batch in the making.

    Attributes:
        images: uint8 (B, r, r, 3), host memory.
        indices: int64 (B,).
        codes: int64 (B,), error codes.
        counts: int64 (B, 3).
        parts: the calls that fill the arrays.
    """

    images: torch.Tensor
    indices: np.ndarray
    codes: np.ndarray
    counts: np.ndarray
    parts: list[Future]


class RocLoader(BaseLoader):
    """Cut, decode and resample in one kernel, samples spread over threads, batches made ahead."""

    shares_boxes = True

    def __init__(self, config: LoaderConfig) -> None:
        """Opens the file.

        Args:
            config: what to deliver.
        """
        self._reader = open_beton(config.path)
        super().__init__(config, self._reader.classes, len(self._reader))
        self.counters: RocCounters = RocCounters()
        self.last_shifts = np.empty(0, np.int64)
        """int64 (B,): for each sample of the last batch, log2 of how much coarser than the image its level was."""
        self._places = places_of(self._reader)
        self._read_ahead = ReadAhead(self._reader.data)
        self._staging = Staging(config.device)
        self._decode = _kernel(self._reader, isinstance(config.crop, TrainCrop), config.min_zoom)
        self._pool = ThreadPoolExecutor(config.num_workers, "roc") if config.num_workers else None

    def _deliveries(self, start: int) -> Generator[Delivery, None, None]:
        epoch, resolution = self.epoch, self.resolution
        wanted = batches(self.config, self.num_samples, epoch, start)
        works = (self._start(*drawn, resolution) for drawn in self._draw(wanted, epoch, resolution))
        if self._pool is None:
            yield from (self._finish(work, epoch) for work in works)
            return
        background = Background(works, _BATCHES_AHEAD)
        try:
            for work in background:
                yield self._finish(work, epoch)
        finally:
            background.close()

    def _draw(
        self, wanted: Iterator[np.ndarray], epoch: int, resolution: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Indices, boxes and flips of each batch, drawn for several batches at once."""
        at_once = max(1, _DRAWN_AT_ONCE // self.config.batch_size)
        while group := list(islice(wanted, at_once)):
            yxhw, flips = self._boxes(np.concatenate(group), epoch, resolution)
            ends = np.cumsum([len(indices) for indices in group])
            for indices, end in zip(group, ends, strict=True):
                part = slice(end - len(indices), end)
                yield indices, yxhw[part], flips[part]

    def _start(self, indices: np.ndarray, yxhw: np.ndarray, flips: np.ndarray, resolution: int) -> _Work:
        """Hands a batch to the threads in chunks."""
        num = len(indices)
        images = self._staging.take(num, resolution)
        work = _Work(images, indices, np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64), [])
        places = self._places[indices]
        self._read_ahead.announce(places)
        pixels = images.numpy()
        for first in range(0, num, _CHUNK):
            part = slice(first, first + _CHUNK)
            arguments = (places[part], yxhw[part], flips[part], pixels[part], work.codes[part], work.counts[part])
            if self._pool is None:
                self._decode(*arguments)
            else:
                work.parts.append(self._pool.submit(self._decode, *arguments))
        return work

    def _boxes(self, indices: np.ndarray, epoch: int, resolution: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = boxes(self.config.crop, self.config.seed, epoch, indices, self._reader.sizes[indices], resolution)
        return chosen.yxhw.astype(np.float64), chosen.flip

    def _finish(self, work: _Work, epoch: int) -> Delivery:
        """Waits for a batch, sees to its bad samples, and sends it on its way to the device."""
        for part in work.parts:
            part.result()
        if not len(work.indices):
            return Delivery(empty_batch(work.images.shape[1], self.config.device), 0, 0, [])
        indices, bad_samples = work.indices.copy(), []
        for slot in np.flatnonzero(work.codes != OK):
            indices[slot] = self._replace(work, int(slot), epoch, bad_samples)
        self.last_shifts = work.counts[:, LEVEL_SHIFT]
        self.counters.pixels_stored += int(self._reader.sizes[indices].prod(axis=1).sum())
        for shift, num in enumerate(np.bincount(self.last_shifts)):
            self.counters.num_by_shift[shift] += int(num)
        labels = torch.from_numpy(self._reader.labels[indices])
        batch = Batch(*map(self._staging.to_device, (work.images, labels, torch.from_numpy(indices))))
        num_bytes, num_pixels = (int(work.counts[:, column].sum()) for column in (BYTES, PIXELS))
        return Delivery(batch, num_bytes, num_pixels, bad_samples)

    def _replace(self, work: _Work, slot: int, epoch: int, bad_samples: list[str]) -> int:
        """By the policy stops, or fills a bad sample's slot from the next good sample, whose index it returns."""
        part, resolution = slice(slot, slot + 1), work.images.shape[1]
        pixels = work.images.numpy()[part]

        def make(index: int) -> int:
            one = np.array([index])
            yxhw, flips = self._boxes(one, epoch, resolution)
            self._decode(self._places[one], yxhw, flips, pixels, work.codes[part], work.counts[part])
            if work.codes[slot] != OK:
                reason = ERRORS[int(work.codes[slot])]
                raise BadSampleError(f"{self._reader.name(index)}: {reason}; convert the data again", index)
            return index

        return make_good(make, int(work.indices[slot]), self.num_samples, self.config.on_bad, bad_samples)

    def _release(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def _kernel(reader: BetonReader | BetonParts, inside: bool, min_zoom: float) -> Callable[..., None]:
    """What fills a run of samples: called with places, boxes, flips, images, codes and counts, by any thread."""
    data = reader.data
    if "roc" in reader.field_names:

        def decode_crops(places: np.ndarray, yxhw: np.ndarray, flips: np.ndarray, *filled: np.ndarray) -> None:
            decode_samples(data, places, yxhw, flips, inside, min_zoom, *filled)

        return decode_crops
    from pipelines.roc import turbojpeg, whole

    turbojpeg.load()
    own = threading.local()  # each thread's decompressor

    def decode_whole(places: np.ndarray, yxhw: np.ndarray, flips: np.ndarray, *filled: np.ndarray) -> None:
        if not hasattr(own, "decompressor"):
            own.decompressor = turbojpeg.Decompressor()
        whole.decode_whole_samples(data, places, yxhw, flips, inside, own.decompressor.handle, *filled)

    return decode_whole
