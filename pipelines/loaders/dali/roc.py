"""Engine `roc-dali`: crops cut out of RoC files at the byte level, decoded and resized by DALI.

Threads cut the crops of the batches to come into small JPEG files; DALI, on the GPU or by its CPU operators, decodes
them, slices the box out, resizes and mirrors. Which sample is where is a pure function of seed, epoch and position, so
nothing of DALI's state has to be saved. See docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

import numpy as np
import torch
from nvidia.dali import Pipeline

from pipelines.loaders.base import empty_batch, retry_next
from pipelines.loaders.dali import common as dali
from pipelines.loaders.dali import roc_graph
from pipelines.loaders.dali.cutter import Cuts, Cutter
from pipelines.loaders.dali.feed import Fed, Feed
from pipelines.loaders.delivery import Delivery, to_device
from pipelines.loaders.prefetch import Background
from pipelines.loaders.roc_base import RocBase
from pipelines.roc.decoder.crops import decode_samples
from pipelines.roc.layout import OK
from pipelines.roc.places import NUM_COUNTS
from pipelines.sampling.order import batches
from pipelines.spec import BadSampleError, Batch, InputError, LoaderConfig, TrainCrop


class _Job(NamedTuple):
    """A batch before decoding.

    Attributes:
        indices: int64 (B,), what is delivered (stand-ins included).
        wanted: int64 (B,), what the order asked for.
        epoch, resolution: of the iteration that it belongs to.
        cuts: the encoded images, and what they cost.
        feed: what DALI gets.
        bad_samples: one line for each sample that was replaced.
    """

    indices: np.ndarray
    wanted: np.ndarray
    epoch: int
    resolution: int
    cuts: Cuts
    feed: Fed
    bad_samples: list[str]


class RocDALILoader(RocBase):
    """Cuts by our kernels, pixels by DALI. Output is a zero-copy view of DALI's buffer (by DLPack)."""

    def __init__(self, config: LoaderConfig) -> None:
        """Opens the file and builds the pipeline.

        Args:
            config: what to deliver; `config.dali` has DALI's own settings.
        """
        super().__init__(config)
        if "roc" not in self._reader.field_names:
            self._release()
            raise InputError(
                f"{config.path} has no RoC records, so engine='roc-dali' cannot cut it; "
                "convert the data with --format roc, or choose --engine roc"
            )
        self._inside = isinstance(config.crop, TrainCrop)
        self._cutter = Cutter(self._reader.data, self._inside, config.min_zoom, self._pool)
        self._known_bad: dict[tuple[int, int, int], str] = {}  # by epoch, resolution, index: what only decoding showed
        self._failed: list[_Job] = []  # what the last pipeline that failed may still be reading
        self._feed = Feed()
        self._pipeline = self._build()

    def _build(self) -> Pipeline:
        return dali.build(self.config, self._graph, prefetch=self.config.dali.prefetch)

    def _graph(self) -> tuple:
        encoded, *numbers = roc_graph.sources(self._feed, self._inside)
        return (roc_graph.resized(roc_graph.decoded(encoded, self.config), numbers, self._inside),)

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        wanted = list(batches(self.config, self.num_samples, epoch, start))
        jobs = self._jobs([indices for indices in wanted if len(indices)], epoch, resolution)
        background = Background(jobs, self.config.dali.batches_ahead) if self._pool else None
        jobs = iter(background) if background else jobs
        self._feed.start(jobs)
        try:
            while True:
                try:
                    yield from self._run_pipeline()
                    break
                except RuntimeError as error:
                    jobs = self._after_failure(error, jobs)
                    self._feed.go_on(jobs)
            if self._feed.error is not None:
                raise self._feed.error
            if wanted and not len(wanted[-1]):
                yield Delivery(empty_batch(resolution, self.config.device), 0, 0, [])
        finally:
            self._drain()
            if background:
                background.close()

    def _run_pipeline(self) -> Iterator[Delivery]:
        for (images,) in dali.runs(self._pipeline):
            job = self._feed.in_flight.popleft()
            self._cutter.give_back(job.cuts)
            num_bytes, num_pixels = self._note(job.indices, job.cuts.counts)
            device = self.config.device
            labels = to_device(torch.from_numpy(self._reader.labels[job.indices]), device)
            indices = to_device(torch.from_numpy(job.indices), device)
            batch = Batch(dali.to_torch(images, self.config), labels, indices)
            yield Delivery(batch, num_bytes, num_pixels, job.bad_samples)

    def _drain(self) -> None:
        """Takes what is still inside DALI, so that the next iteration finds the pipeline empty."""
        self._feed.start(iter(()))
        if self._feed.in_flight:
            try:
                for _ in dali.runs(self._pipeline):
                    pass
            except RuntimeError:
                self._failed = list(self._feed.in_flight)
                self._pipeline = self._build()
            self._feed.in_flight.clear()

    def _release(self) -> None:
        super()._release()
        self._pipeline, self._failed = None, []  # with its threads and its memory on the device

    def _jobs(self, wanted: list[np.ndarray], epoch: int, resolution: int) -> Iterator[_Job]:
        """Batches cut one after the other; the next one's bytes are announced before."""
        drawn = self._draw(iter(wanted), epoch, resolution)
        upcoming = next(drawn, None)
        while upcoming is not None:
            current, upcoming = upcoming, next(drawn, None)
            if upcoming is not None:
                self._read_ahead.announce(self._places[upcoming[0]])
            yield self._job(*current, epoch, resolution)

    def _job(self, wanted: np.ndarray, yxhw: np.ndarray, flips: np.ndarray, epoch: int, resolution: int) -> _Job:
        indices, bad_samples = np.array(wanted, np.int64), []
        cuts = self._cutter.cut(self._places[indices], yxhw, resolution)
        bad = cuts.codes != OK
        if self._known_bad:
            bad |= [(epoch, resolution, index) in self._known_bad for index in indices.tolist()]
        if bad.any():
            self._cutter.give_back(cuts)
            for slot in np.flatnonzero(bad):
                indices[slot] = self._stand_in(int(indices[slot]), epoch, resolution, bad_samples)
            yxhw, flips = self._boxes(indices, epoch, resolution)
            cuts = self._cutter.cut(self._places[indices], yxhw, resolution)
            assert (cuts.codes == OK).all(), "what could be cut once can be cut again"
        feed = Fed(cuts.encoded, roc_graph.numbers_of(cuts, flips, resolution, self._inside))
        return _Job(indices, wanted, epoch, resolution, cuts, feed, bad_samples)

    def _stand_in(self, wanted: int, epoch: int, resolution: int, bad_samples: list[str]) -> int:
        """By the policy stops at a bad sample, or returns the index of the next good one."""

        def make(index: int) -> int:
            if line := self._known_bad.get((epoch, resolution, index)):
                raise BadSampleError(line, index)
            one = np.array([index])
            cuts = self._cutter.cut(self._places[one], self._boxes(one, epoch, resolution)[0], resolution)
            if cuts.codes[0] != OK:
                raise self._bad_sample(index, cuts.codes[0])
            return index

        return retry_next(make, wanted, self.num_samples, self.config.on_bad, bad_samples)

    def _after_failure(self, error: RuntimeError, rest: Iterator[_Job]) -> Iterator[_Job]:
        """Finds the bad samples among those in flight; by the policy stops, or goes on with stand-ins."""
        # A pipeline does not survive an error; its threads may, for a while, and they read the cuts where they lie.
        self._failed = failed = list(self._feed.in_flight)
        self._feed.in_flight.clear()
        self._pipeline = self._build()
        found = self._find_bad(failed, error)
        if self.config.on_bad == "stop":
            (_, _, index), line = next(iter(found.items()))
            raise BadSampleError(line, index) from None
        self._known_bad |= found
        return self._again(failed, rest)

    def _again(self, failed: list[_Job], rest: Iterator[_Job]) -> Iterator[_Job]:
        for job in failed:
            yxhw, flips = self._boxes(job.wanted, job.epoch, job.resolution)
            yield self._job(job.wanted, yxhw, flips, job.epoch, job.resolution)
        yield from rest

    def _find_bad(self, failed: list[_Job], error: RuntimeError) -> dict[tuple[int, int, int], str]:
        """What DALI choked on. It names no sample, so our decoder is asked, then DALI, one image at a time."""
        found = {}
        for say in (self._ours_says, self._dali_says):
            for job in failed:
                lines = say(job)
                found |= {(job.epoch, job.resolution, index): line for index, line in lines.items()}
            if found:
                return found
        raise InputError(f"{self.config.path}: DALI failed, and not for a bad image: {dali.reason(error)}") from error

    def _ours_says(self, job: _Job) -> dict[int, str]:
        num, r = len(job.indices), job.resolution
        codes, counts = np.zeros(num, np.int64), np.zeros((num, NUM_COUNTS), np.int64)
        yxhw, flips = self._boxes(job.indices, job.epoch, r)
        out = np.empty((num, r, r, 3), np.uint8)
        places, zoom = self._places[job.indices], self.config.min_zoom
        decode_samples(self._reader.data, places, yxhw, flips, self._inside, zoom, out, codes, counts)
        return {int(job.indices[k]): str(self._bad_sample(job.indices[k], codes[k])) for k in np.flatnonzero(codes)}

    def _dali_says(self, job: _Job) -> dict[int, str]:
        remedy = "our decoder can; choose --engine roc, or convert the data again"
        reasons = [dali.refusal(encoded, self.config) for encoded in job.cuts.encoded]
        return {
            int(index): f"{self._reader.name(int(index))}: DALI cannot decode it ({reason}), {remedy}"
            for index, reason in zip(job.indices, reasons, strict=True)
            if reason is not None
        }
