"""Prepares batches in a background thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_END = object()


class Prefetcher(Generic[T]):
    """Iterates over `items` in a thread, at most `depth` items ahead of the consumer.

    If `items` raises an exception, the consumer gets it after the items before it.
    """

    def __init__(self, items: Iterable[T], depth: int) -> None:
        self._queue: queue.Queue = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(items,), daemon=True, name="prefetch")
        self._thread.start()

    def _work(self, items: Iterable[T]) -> None:
        try:
            for item in items:
                if not self._put((item, None)):
                    return
            self._put((_END, None))
        except Exception as error:  # any error must reach the consumer, else it would wait forever
            self._put((_END, error))

    def _put(self, entry: tuple[object, Exception | None]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._queue.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item

    def close(self) -> None:
        """Stops the thread. Idempotent."""
        self._stop.set()
        if self._thread is not threading.current_thread():  # a garbage collection in the thread may close it
            self._thread.join()
