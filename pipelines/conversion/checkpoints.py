"""Notes what a conversion has done while it goes on, so that a slow disk does not stop the workers."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from pipelines.conversion.journal import Journal
from pipelines.formats.entry import Entry


class Syncable(Protocol):
    """A writer whose data can be made safe."""

    def sync(self) -> None:
        """Returns when everything written so far is safe on disk."""
        ...


class Checkpoints:
    """Makes data safe and then notes it, every so often, in a thread.

    Args:
        writer: of the data.
        journal: of the notes.
        seconds: from one note to the next; so much work is lost at most.
    """

    def __init__(self, writer: Syncable, journal: Journal, seconds: float) -> None:
        self._writer, self._journal, self._seconds = writer, journal, seconds
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future | None = None
        self._waiting: list[Entry] = []
        self._noted = time.monotonic()

    def add(self, entry: Entry) -> None:
        """A sample is done, and written if it is good."""
        self._waiting.append(entry)

    def note_if_due(self) -> None:
        """Begins a note if it is time and none is under way; raises what went wrong with the last one."""
        if self._running is not None and not self._running.done():
            return
        if time.monotonic() - self._noted < self._seconds:
            return
        self._finish_running()
        entries, self._waiting = self._waiting, []
        self._running, self._noted = self._pool.submit(self._note, entries), time.monotonic()

    def note_all(self) -> None:
        """Notes everything that is done; raises OSError if the disk does not take it."""
        self._finish_running()
        entries, self._waiting = self._waiting, []
        self._note(entries)

    def close(self) -> None:
        """Ends the thread. Idempotent."""
        self._pool.shutdown(wait=True)

    def _finish_running(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def _note(self, entries: list[Entry]) -> None:
        self._writer.sync()
        self._journal.write(entries)
