"""Engines that feed DALI: encoded images go in through a queue, finished batches come out."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types

from fixres.pipelines.loaders.base import BaseLoader, empty_batch
from fixres.pipelines.loaders.dali import common as dali
from fixres.pipelines.loaders.delivery import Delivery, to_device
from fixres.pipelines.loaders.prefetch import Prefetcher
from fixres.pipelines.sampling.draws import indices_of
from fixres.pipelines.spec import BadSampleError, Batch


@dataclass
class Fed:
    """DALI's inputs for one batch."""

    encoded: np.ndarray | list[np.ndarray]
    """uint8 (B, m) or a list of B uint8 arrays; must not change until the batch has come out."""
    numbers: tuple[np.ndarray, ...]
    """Small arrays of B rows each."""


@dataclass
class Job(Fed):
    """A batch before decoding. All jobs inside DALI have the same epoch and resolution."""

    draws: np.ndarray
    """int64 (B,), the draws (`sampling.draws.indices_of`) that are delivered, replacements included."""
    wanted: np.ndarray
    """int64 (B,), the draws of the order."""
    epoch: int
    resolution: int
    bad_samples: list[str]
    """One line for each sample that was replaced."""


class Feed:
    """Hands jobs to DALI. Its two callbacks are called in any order by the thread that runs the pipeline.

    Attributes:
        in_flight: jobs inside DALI, oldest first.
        error: the error that ended the jobs early. DALI sees the end of the jobs, so all batches before come out first.
    """

    def __init__(self) -> None:
        self.in_flight: deque[Any] = deque()
        self.error: Exception | None = None
        self._jobs: Iterator[Any] = iter(())
        self._waiting: tuple[deque, deque] = deque(), deque()

    def start(self, jobs: Iterator[Any]) -> None:
        """Starts a new iteration over `jobs`."""
        self.error = None
        self.resume(jobs)

    def resume(self, jobs: Iterator[Any]) -> None:
        """Continues the same iteration with `jobs` after a failure; keeps `error`."""
        self._jobs = jobs
        for waiting in self._waiting:
            waiting.clear()

    def encoded(self) -> tuple:
        """The callback for encoded images."""
        return (self._next(0).encoded,)

    def numbers(self) -> tuple:
        """The callback for the small arrays."""
        return self._next(1).numbers

    def _next(self, which: int) -> Fed:
        if not self._waiting[which]:
            job = self._take()
            for waiting in self._waiting:
                waiting.append(job)
        return self._waiting[which].popleft()

    def _take(self) -> Any:
        try:
            job = next(self._jobs)
        except StopIteration:
            raise
        except Exception as error:
            self.error, self._jobs = error, iter(())
            raise StopIteration from None
        self.in_flight.append(job)
        return job


def external_sources(feed: Feed, dtypes: Sequence[Any], ndims: Sequence[int] = ()) -> list[Any]:
    """Graph nodes of the encoded images and of the small arrays.

    The images are not copied, because that would take longer than cutting them. Small arrays are faster to copy. They
    have the DALI types `dtypes`, and `ndims` dimensions for each sample, by default 1.
    """
    options = {"batch": True, "no_copy": True}
    images = fn.external_source(source=feed.encoded, num_outputs=1, dtype=[types.UINT8], ndim=[1], **options)
    ndims = list(ndims) or [1] * len(dtypes)
    small = fn.external_source(source=feed.numbers, num_outputs=len(dtypes), batch=True, dtype=list(dtypes), ndim=ndims)
    return [*images, *small]


class FedLoader(BaseLoader):
    """A loader that feeds DALI with jobs. It finds bad samples after DALI's errors, and replaces them or stops.

    DALI has no state that must be saved, because a sample's position is a pure function of seed, epoch and index.
    """

    shares_boxes = True

    def _start_pipeline(self, prefetch: int, ahead: int) -> None:
        """Builds the pipeline; called at the end of a subclass's __init__.

        Args:
            prefetch: batches inside DALI.
            ahead: batches that a thread prepares in addition; 0 prepares them in the calling thread.
        """
        self._prefetch, self._ahead = prefetch, ahead
        self._known_bad: dict[tuple[int, int, int], str] = {}  # by epoch, resolution and draw: found only by decoding
        self._failed: list[Any] = []  # jobs that a failed pipeline's threads may still be reading
        self._feed = Feed()
        self._pipeline: Pipeline | None = self._build()

    def _build(self) -> Pipeline:
        return dali.build_pipeline(self.config, self._graph, prefetch=self._prefetch)

    @abstractmethod
    def _graph(self) -> tuple:
        """Nodes of DALI's outputs; the first one is the images."""

    @abstractmethod
    def _jobs(self, wanted: list[np.ndarray], epoch: int, resolution: int) -> Iterator[Any]:
        """Prepares the jobs of batches that are not empty."""

    @abstractmethod
    def _costs(self, job: Any, outputs: tuple) -> tuple[int, int]:
        """Encoded bytes and decoded pixels of a job that has come out of DALI."""

    @abstractmethod
    def _find_bad(self, failed: list[Any], error: RuntimeError) -> dict[int, str]:
        """Lines for the bad samples among failed jobs, by draw. Raises InputError if there is none."""

    @property
    @abstractmethod
    def _labels(self) -> np.ndarray:
        """int64 (N,): labels of the data set."""

    def _deliveries(self, start: int, epoch: int, resolution: int) -> Generator[Delivery, None, None]:
        wanted = list(self._draws(epoch, start))
        jobs = self._jobs([draws for draws in wanted if len(draws)], epoch, resolution)
        background = Prefetcher(jobs, self._ahead) if self._ahead else None
        jobs = iter(background) if background else jobs
        self._feed.start(jobs)
        try:
            while True:
                try:
                    yield from self._run_pipeline()
                    break
                except RuntimeError as error:
                    jobs = self._after_failure(error, jobs)
                    self._feed.resume(jobs)
            if self._feed.error is not None:
                raise self._feed.error
            if wanted and not len(wanted[-1]):
                yield Delivery(empty_batch(resolution, self.config.device), 0, 0, [])
        finally:
            self._drain()
            if background:
                background.close()

    def _run_pipeline(self) -> Iterator[Delivery]:
        for outputs in dali.run_to_end(self._pipeline):
            job = self._feed.in_flight.popleft()
            num_bytes, num_pixels = self._costs(job, outputs)
            device = self.config.device
            positions = indices_of(job.draws)
            labels = to_device(torch.from_numpy(self._labels[positions]), device)
            indices = to_device(torch.from_numpy(positions), device)
            batch = Batch(dali.to_torch(outputs[0], self.config), labels, indices)
            yield Delivery(batch, num_bytes, num_pixels, job.bad_samples)

    def _after_failure(self, error: RuntimeError, rest: Iterator[Any]) -> Iterator[Any]:
        """Finds the bad samples among the jobs in flight. Depending on `on_bad` it stops or returns the jobs to do."""
        # A pipeline cannot be used after an error. Its threads may run for a while, and they read the jobs' arrays.
        self._failed = failed = list(self._feed.in_flight)
        self._feed.in_flight.clear()
        self._pipeline = self._build()
        found = self._find_bad(failed, error)
        if self.config.on_bad == "stop":
            dali.raise_bad(found)
        for draw, line in found.items():
            self._known_bad[self._bad_key(draw, failed[0].epoch, failed[0].resolution)] = line
        return self._repeat(failed, rest)

    def _repeat(self, failed: list[Any], rest: Iterator[Any]) -> Iterator[Any]:
        for job in failed:
            yield from self._jobs([job.wanted], job.epoch, job.resolution)
        yield from rest

    def _bad_key(self, draw: int, epoch: int, resolution: int) -> tuple[int, int, int]:
        return epoch, resolution, draw

    def _check_known_bad(self, draw: int, epoch: int, resolution: int) -> None:
        """Raises BadSampleError if DALI failed at this sample before."""
        if line := self._known_bad.get(self._bad_key(draw, epoch, resolution)):
            raise BadSampleError(line, int(indices_of(draw)))

    def _drain(self) -> None:
        """Takes the remaining batches out of DALI, so that the next iteration finds the pipeline empty."""
        self._feed.start(iter(()))
        if self._feed.in_flight:
            try:
                for _ in dali.run_to_end(self._pipeline):
                    pass
            except RuntimeError:
                self._failed = list(self._feed.in_flight)
                self._pipeline = self._build()
            self._feed.in_flight.clear()

    def _release(self) -> None:
        super()._release()
        self._pipeline, self._failed = None, []  # ends DALI's threads and frees its memory on the device
