"""What DALI's two external sources take from a queue: encoded images without a copy, and numbers that are copied."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from nvidia.dali import fn, types


class Fed(NamedTuple):
    """What DALI gets of one batch.

    Attributes:
        encoded: uint8 (B, m) or a list of B uint8 arrays; must stay as they are until the batch has come out.
        numbers: small arrays of B rows each.
    """

    encoded: np.ndarray | list[np.ndarray]
    numbers: tuple[np.ndarray, ...]


class Job(Protocol):
    """A batch before decoding."""

    feed: Fed


class Feed:
    """Hands jobs to DALI, whose callbacks come in pairs, in any order, from the thread that runs the pipeline.

    Attributes:
        in_flight: jobs that DALI has and that have not come out yet, oldest first.
        error: what ended the jobs early; DALI was told that they were at their end, so that all before come out first.
    """

    def __init__(self) -> None:
        self.in_flight: deque[Any] = deque()
        self.error: Exception | None = None
        self._jobs: Iterator[Any] = iter(())
        self._waiting: tuple[deque, deque] = deque(), deque()

    def start(self, jobs: Iterator[Any]) -> None:
        """A new iteration takes jobs from here."""
        self.error = None
        self.go_on(jobs)

    def go_on(self, jobs: Iterator[Any]) -> None:
        """After a failure, the same iteration takes jobs from here; an `error` that was met stays to be raised."""
        self._jobs = jobs
        for waiting in self._waiting:
            waiting.clear()

    def encoded(self) -> tuple:
        """The first callback."""
        return (self._next(0).encoded,)

    def numbers(self) -> tuple:
        """The second one."""
        return self._next(1).numbers

    def _next(self, which: int) -> Fed:
        if not self._waiting[which]:
            job = self._take()
            for waiting in self._waiting:
                waiting.append(job.feed)
        return self._waiting[which].popleft()

    def _take(self) -> Job:
        try:
            job = next(self._jobs)
        except StopIteration:
            raise
        except Exception as error:
            self.error, self._jobs = error, iter(())
            raise StopIteration from None
        self.in_flight.append(job)
        return job


def external_sources(feed: Feed, numbers: list[Any]) -> list[Any]:
    """Graph nodes of the encoded images and of the numbers, whose DALI types are given.

    The images are not copied, which would take longer than cutting them; copying is faster for the small arrays.
    """
    options = {"batch": True, "no_copy": True}
    images = fn.external_source(source=feed.encoded, num_outputs=1, dtype=[types.UINT8], ndim=[1], **options)
    count = len(numbers)
    small = fn.external_source(source=feed.numbers, num_outputs=count, batch=True, dtype=numbers, ndim=[1] * count)
    return [*images, *small]
