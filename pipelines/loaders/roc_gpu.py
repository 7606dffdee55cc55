"""Engine `roc-gpu`: crops decoded by our own CUDA kernels, equal to engine `roc`'s to the bit; here of RoC records.

Threads check offsets and copy the bytes of each crop into pinned memory; everything else is done by the GPU, on a
stream of its own, some batches ahead of the training step. See docs/gpu.md.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator, Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fixres.pipelines.loaders.base import BaseLoader, empty_batch
from fixres.pipelines.loaders.delivery import Delivery
from fixres.pipelines.loaders.prefetch import Prefetcher
from fixres.pipelines.loaders.residency import resident_copy
from fixres.pipelines.loaders.roc import RocLoader
from fixres.pipelines.roc.gpu import launcher as gpu
from fixres.pipelines.roc.gpu.staging import Staged, Stager, section
from fixres.pipelines.roc.layout import OK
from fixres.pipelines.sampling.crops import Boxes
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.spec import Batch, InputError, LoaderConfig, TrainCrop

_BATCHES_AHEAD = 3


class Work(NamedTuple):
    """A batch that the GPU decodes."""

    batch: Batch  # on the device; not complete before `done`
    draws: np.ndarray  # int64 (B,), see `sampling.draws.indices_of`
    counts: np.ndarray  # int64 (B, 3)
    sizes: np.ndarray  # int64 (B, 2), height and width of the images
    problems: Mapping[int, str]  # what the host has found, by places in the batch; of RoC records it has codes instead
    is_bad: bool  # the host has found an error
    codes: Tensor  # int64 (B,) in host memory, valid after `done`
    done: gpu.Event


class GPUBatches(BaseLoader):
    """Starts the kernels of staged batches and hands the batches over. The CPU's kernels replace bad samples."""

    decodes_on_host = makes_views = False
    _launcher: gpu.Launcher
    _stored: Tensor | None = None
    """The file where kernels can read it."""

    def _release(self) -> None:
        super()._release()
        if self._stored is not None:  # kernels may still read it
            with self._launcher.working():
                self._launcher.record().synchronize()
        self._stored = None

    def _on_device(self, deliveries: Generator[Delivery, None, None]) -> Generator[Delivery, None, None]:
        return deliveries  # `Launcher.receive` keeps memory until it was used

    @abstractmethod
    def _labels(self, indices: np.ndarray) -> np.ndarray:
        """int64 (B,)."""

    @abstractmethod
    def _make_again(self, work: Work, slot: int, epoch: int, bad_samples: list[str]) -> tuple[int, np.ndarray]:
        """Stops at a bad sample, or makes the crop of the next good one; changes the batch's counts and sizes.

        Args:
            work: a finished batch.
            slot: place of the bad sample.
            epoch: of its crop.
            bad_samples: gets a line for each bad sample.

        Returns:
            The index of the sample, and uint8 (r, r, 3).
        """

    @abstractmethod
    def _count_batch(self, work: Work, indices: np.ndarray) -> tuple[int, int]:
        """Updates the counters; returns bytes read and pixels decoded."""

    def _launch(self, staged: Staged, draws: np.ndarray, sizes: np.ndarray, problems: Mapping[int, str]) -> Work:
        """Starts the copy and the kernels of a staged batch."""
        num, side = len(draws), staged.resolution
        with self._launcher.working():
            there = self._launcher.send(staged.buffer)
            scratch = torch.empty(staged.scratch_size, dtype=torch.uint8, device=there.device)
            images = torch.empty((num, side, side, 3), dtype=torch.uint8, device=there.device)
            arguments = staged.arguments(there, self._stored, scratch, images)
            for launch in staged.launches:
                self._launcher.launch(launch, arguments)
            staged.insert_made(there, images)
            # copies, because a consumer that keeps labels would keep the whole buffer
            batch = Batch(images, section(there, num, "labels").clone(), section(there, num, "indices").clone())
            codes = self._launcher.fetch(section(there, num, "codes"))
            is_bad = bool(problems) or bool((staged.codes != OK).any())
            return Work(batch, draws, staged.counts, sizes, problems, is_bad, codes, self._launcher.record())

    def _finished(self, works: Iterable[Work | None], epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        """Hands over batches; errors that the GPU finds come with their batch, or with the next one.

        With on_bad="stop" the host does not wait: if the GPU has not finished a batch when it is delivered, its codes
        are read at the next one. With "replace" it waits, so that no bad sample is delivered.
        """
        unchecked: Work | None = None
        for work in works:
            if unchecked is not None:
                self._replace_bad(unchecked, epoch)
                unchecked = None
            if work is None:
                yield Delivery(empty_batch(resolution, self.config.device), 0, 0, [])
                continue
            self._launcher.receive(tuple(work.batch), work.done)
            batch, indices, bad_samples = work.batch, indices_of(work.draws), []
            if self.config.on_bad == "replace" or work.is_bad or work.done.query():
                batch, indices, bad_samples = self._replace_bad(work, epoch)
            else:
                unchecked = work
            yield Delivery(batch, *self._count_batch(work, indices), bad_samples)
        if unchecked is not None:
            self._replace_bad(unchecked, epoch)

    def _replace_bad(self, work: Work, epoch: int) -> tuple[Batch, np.ndarray, list[str]]:
        """Waits for a batch; stops at its first bad sample, or replaces them, depending on `on_bad`."""
        work.done.synchronize()
        bad = sorted({*np.flatnonzero(work.codes.numpy() != OK).tolist(), *work.problems})
        indices, bad_samples = indices_of(work.draws), []
        if not bad:
            return work.batch, indices, bad_samples
        images, device = work.batch.images, work.batch.images.device
        for slot in bad:
            indices[slot], pixels = self._make_again(work, slot, epoch, bad_samples)
            images[slot].copy_(torch.from_numpy(pixels).view_as(images[slot]))
        labels = torch.from_numpy(self._labels(indices))
        return Batch(images, labels.to(device), torch.from_numpy(indices).to(device)), indices, bad_samples


class RocGPULoader(GPUBatches, RocLoader):
    """The host copies bytes, the GPU decodes. Samples that cannot be decoded are replaced by engine `roc`'s kernels."""

    def __init__(self, config: LoaderConfig) -> None:
        super().__init__(config)
        try:
            self._launcher = gpu.open_launcher(config.device)
            self._stored = resident_copy(self._reader.data, self._table, config, self._launcher)
        except InputError:
            self._release()
            raise
        inside = isinstance(config.crop, TrainCrop)
        allocate, is_resident = self._launcher.host_buffer, self._stored is not None
        self._stager = Stager(self._reader.data, inside, config.zoom, allocate, self._pool, is_resident)

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        drawn = self._draw(self._draws(epoch, start), epoch, resolution)
        works = (self._start_decoding(*one, resolution) for one in drawn)
        if self._pool is None:
            yield from self._finished(works, epoch, resolution)
            return
        background = Prefetcher(works, _BATCHES_AHEAD)
        try:
            yield from self._finished(background, epoch, resolution)
        finally:
            background.close()

    def _start_decoding(self, draws: np.ndarray, boxes: Boxes, resolution: int) -> Work | None:
        """Stages a batch and starts its kernels; None for the empty batch of a rank."""
        indices = indices_of(draws)
        if not len(indices):
            return None
        table = self._table[indices]
        self._read_ahead.announce(table)
        one = Boxes(*(values[:, 0] for values in boxes))
        staged = self._stager.stage(table, one, self._labels(indices), indices, resolution)
        return self._launch(staged, draws, self._reader.sizes[indices], {})

    def _labels(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self._reader.labels[indices], np.int64)

    def _make_again(self, work: Work, slot: int, epoch: int, bad_samples: list[str]) -> tuple[int, np.ndarray]:
        resolution, counts = work.batch.images.shape[1], work.counts[slot : slot + 1]
        places = self._views.places(resolution, 1)
        pixels, draw = np.empty(places.size, np.uint8), int(work.draws[slot])
        return self._replacement(draw, epoch, resolution, pixels, places, counts, bad_samples), pixels

    def _count_batch(self, work: Work, indices: np.ndarray) -> tuple[int, int]:
        return self._note(indices, work.counts)
