"""Shared by the engines that read RoC files: the file, boxes drawn ahead, the thread pool, the counters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from fixres.pipelines.formats.beton_parts import open_beton
from fixres.pipelines.loaders.base import BaseLoader
from fixres.pipelines.roc.layout import BYTES, ERRORS, LEVEL_SHIFT, MAX_SHIFT, PIXELS
from fixres.pipelines.roc.sample_table import ReadAhead, locate_samples
from fixres.pipelines.runtime.decoding_threads import decoding_threads
from fixres.pipelines.sampling.crops import Boxes, crop_boxes
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.spec import BadSampleError, Counters, LoaderConfig

_DRAWN_AT_ONCE = 1024  # samples whose boxes are drawn together; 1 us each instead of 6


@dataclass
class RocCounters(Counters):
    """Adds counters of the pixels that did not have to be decoded."""

    pixels_stored: int = 0
    """Pixels of the samples' images at full size, which an engine without RoC would decode."""
    num_by_shift: list[int] = field(default_factory=lambda: [0] * (MAX_SHIFT + 1))
    """Number of samples by the level that was decoded; its sides are 2**shift times smaller."""


class RocBase(BaseLoader):
    """A loader of a .beton file, or of a folder of its parts, with boxes of `fixres.pipelines.sampling.crops`."""

    shares_boxes = True

    def __init__(self, config: LoaderConfig) -> None:
        self._reader = open_beton(config.path)
        super().__init__(config, self._reader.classes, len(self._reader))
        self.counters: RocCounters = RocCounters()
        self.last_shifts = np.empty(0, np.int64)
        """int64 (B,): the shift of the decoded level of each sample of the last batch. On a GPU it is the next batch,
        whose copy to the device has started."""
        self._table = locate_samples(self._reader)
        self._read_ahead = ReadAhead(self._reader.data)
        self._pool = decoding_threads(config.num_workers, config.device) if config.num_workers else None

    def _draw(self, wanted: Iterator[np.ndarray], epoch: int, resolution: int) -> Iterator[tuple[np.ndarray, Boxes]]:
        """Yields draws and boxes of each batch; boxes are drawn for several batches at once."""
        at_once = max(1, _DRAWN_AT_ONCE // self.config.batch_size)
        while group := list(islice(wanted, at_once)):
            boxes = self._boxes(np.concatenate(group), epoch, resolution)
            ends = np.cumsum([len(draws) for draws in group])
            for draws, end in zip(group, ends, strict=True):
                yield draws, Boxes(*(array[end - len(draws) : end] for array in boxes))

    def _boxes(self, draws: np.ndarray, epoch: int, resolution: int) -> Boxes:
        """Boxes as the kernels take them, float64."""
        sizes = self._reader.sizes[indices_of(draws)]
        chosen = crop_boxes(self.config.crop, self.config.seed, epoch, draws, sizes, resolution)
        return chosen._replace(yxhw=chosen.yxhw.astype(np.float64))

    def _note(self, indices: np.ndarray, counts: np.ndarray) -> tuple[int, int]:
        """Updates the counters of a batch; returns its bytes and pixels from `counts`, int64 (B, 3)."""
        self.last_shifts = counts[:, LEVEL_SHIFT]
        self.counters.pixels_stored += int(self._reader.sizes[indices].prod(axis=1).sum())
        for shift, num in enumerate(np.bincount(self.last_shifts)):
            self.counters.num_by_shift[shift] += int(num)
        return int(counts[:, BYTES].sum()), int(counts[:, PIXELS].sum())

    def _bad_sample(self, index: int, code: int) -> BadSampleError:
        return BadSampleError(f"{self._reader.name(index)}: {ERRORS[int(code)]}; convert the data again", int(index))

    def _release(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
