"""Engine `dali-slice`: DALI's operators with our order, boxes and flips, over any source.

A thread reads encoded images and computes their boxes; DALI decodes the box (fused, so that rows above it are only
entropy-decoded), resizes and mirrors, on the CPU or the GPU. Which sample is where is a pure function of seed, epoch
and position, so nothing of DALI's state has to be saved, and a run resumes exactly at no cost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia.dali import fn, types

from pipelines.images.codec import image_size
from pipelines.loaders.base import BaseLoader, empty_batch, retry_next
from pipelines.loaders.dali import common as dali
from pipelines.loaders.delivery import Delivery, to_device
from pipelines.loaders.prefetch import Background
from pipelines.sampling.crops import crop_boxes
from pipelines.sampling.order import batches
from pipelines.sources import open_stored
from pipelines.spec import BadSampleError, Batch, LoaderConfig, TrainCrop

_AHEAD = 2  # batches read and ready beside those inside DALI


class _Job(NamedTuple):
    """A batch before decoding.

    Attributes:
        indices: int64 (B,), what is delivered (stand-ins included).
        wanted: int64 (B,), what the order asked for.
        resolution: output side in pixels.
        feed: DALI's inputs: encoded images, two corners, output sizes, flips.
        bytes_read: encoded bytes.
        bad_samples: one line for each sample that was replaced.
    """

    indices: np.ndarray
    wanted: np.ndarray
    resolution: int
    feed: tuple
    bytes_read: int
    bad_samples: list[str]


class DALISliceLoader(BaseLoader):
    """Fused decode-and-crop at boxes of ours. Output is a zero-copy view of DALI's buffer (by DLPack)."""

    shares_boxes = True

    def __init__(self, config: LoaderConfig) -> None:
        self._source = open_stored(config.path)
        super().__init__(config, self._source.classes, len(self._source))
        self._sizes = getattr(self._source, "sizes", None)  # .beton files know them; elsewhere headers are parsed
        self._known_bad: dict[int, str] = {}
        self._jobs: Iterator[_Job] = iter(())
        self._in_flight: deque[_Job] = deque()
        self._pipeline = dali.build(config, self._graph)

    def _graph(self) -> tuple:
        encoded, corner, extent, size, flip = fn.external_source(
            source=self._next_feed,
            num_outputs=5,
            batch=True,
            dtype=[types.UINT8, *self._corner_types(), types.FLOAT, types.INT32],
            ndim=[1, 1, 1, 1, 0],
        )
        inside = isinstance(self.config.crop, TrainCrop)
        arguments = dali.decoder_arguments(self.config, part=inside)
        if inside:
            pixels = fn.decoders.image_slice(encoded, start=corner, shape=extent, axis_names="HW", **arguments)
            images = fn.resize(pixels, size=size, interp_type=types.INTERP_LINEAR, antialias=True)
        else:
            pixels = fn.decoders.image(encoded, **arguments)
            images = fn.resize(
                pixels, size=size, roi_start=corner, roi_end=extent, interp_type=types.INTERP_LINEAR, antialias=True
            )
        return fn.flip(images, horizontal=flip), pixels.shape()

    def _corner_types(self) -> list[Any]:
        number = types.INT32 if isinstance(self.config.crop, TrainCrop) else types.FLOAT
        return [number, number]

    def _next_feed(self) -> tuple:
        """DALI's inputs for one run; called by the thread that runs the pipeline."""
        job = next(self._jobs)  # StopIteration ends the epoch
        self._in_flight.append(job)
        return job.feed

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        wanted = list(batches(self.config, self.num_samples, epoch, start))
        background = Background((self._job(w, epoch, resolution) for w in wanted if len(w)), _AHEAD)
        jobs = iter(background)
        try:
            while True:
                self._jobs = jobs
                try:
                    yield from self._run_pipeline()
                    break
                except RuntimeError as error:
                    jobs = self._after_failure(error, epoch, jobs)
            if wanted and not len(wanted[-1]):
                yield Delivery(empty_batch(resolution, self.config.device), 0, 0, [])
        finally:
            self._drain()
            background.close()

    def _run_pipeline(self) -> Iterator[Delivery]:
        for images, shapes in dali.runs(self._pipeline):
            job = self._in_flight.popleft()
            indices = torch.from_numpy(job.indices)
            labels = torch.from_numpy(np.asarray(self._source.labels)[job.indices].astype(np.int64))
            device = self.config.device
            batch = Batch(dali.to_torch(images, self.config), to_device(labels, device), to_device(indices, device))
            pixels = int(dali.numbers(shapes)[:, :2].prod(axis=1).sum())
            yield Delivery(batch, job.bytes_read, pixels, job.bad_samples)

    def _after_failure(self, error: RuntimeError, epoch: int, rest: Iterator[_Job]) -> Iterator[_Job]:
        """Finds the bad samples among those in flight; by the policy stops, or goes on with stand-ins."""
        failed = list(self._in_flight)
        self._in_flight.clear()
        self._pipeline = dali.build(self.config, self._graph)  # DALI's pipelines do not survive an error
        found = dali.find_bad(self._source, (i for job in failed for i in job.indices), self.config, error)
        if self.config.on_bad == "stop":
            dali.raise_bad(found)
        self._known_bad |= found
        again = [self._job(job.wanted, epoch, job.resolution) for job in failed]
        return _chain(again, rest)

    def _drain(self) -> None:
        """Takes what is still inside DALI, so that the next iteration finds the pipeline empty."""
        self._jobs = iter(())
        if self._in_flight:
            try:
                for _ in dali.runs(self._pipeline):
                    pass
            except RuntimeError:
                self._pipeline = dali.build(self.config, self._graph)
            self._in_flight.clear()

    def _release(self) -> None:
        del self._pipeline  # with its threads and its memory on the device

    def _job(self, wanted: np.ndarray, epoch: int, resolution: int) -> _Job:
        bad_samples: list[str] = []
        config = self.config
        read = [retry_next(self._read, int(i), self.num_samples, config.on_bad, bad_samples) for i in wanted]
        indices = np.array([index for index, _, _ in read], np.int64)
        chosen = crop_boxes(
            config.crop, config.seed, epoch, indices, np.array([size for _, _, size in read]), resolution
        )
        first, second = chosen.yxhw[:, :2], chosen.yxhw[:, 2:]
        if isinstance(config.crop, TrainCrop):
            corners = first.astype(np.int32), second.astype(np.int32)
        else:
            corners = first.astype(np.float32), (first + second).astype(np.float32)
        sizes = np.full((len(read), 2), resolution, np.float32)
        encoded = [np.frombuffer(data, np.uint8) for _, data, _ in read]
        feed = (encoded, *corners, sizes, chosen.flip.astype(np.int32))
        return _Job(indices, wanted, resolution, feed, sum(map(len, encoded)), bad_samples)

    def _read(self, index: int) -> tuple[int, bytes, tuple[int, int]]:
        """Index, encoded image, (height, width)."""
        if index in self._known_bad:
            raise BadSampleError(self._known_bad[index], index)
        data = self._source.read(index)
        if self._sizes is not None:
            return index, data, (int(self._sizes[index, 0]), int(self._sizes[index, 1]))
        return index, data, image_size(data, self._source.name(index), index)


def _chain(first: list[_Job], rest: Iterator[_Job]) -> Iterator[_Job]:
    # itertools.chain would do, but for a failure while `first` is being fed again: what is left of it must stay.
    yield from first
    yield from rest
