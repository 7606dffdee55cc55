"""The journal of an unfinished conversion: a text file that tells the next process what is safe on disk.

The first line is a JSON object: what is converted and how. Each further line is one finished sample, in the order of
writing. Lines are written after their data is on disk. An incomplete last line is ignored.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fixres.pipelines.formats.samples import Entry
from fixres.pipelines.runtime.atomic_files import open_own, put_in_place
from fixres.pipelines.runtime.json_text import decode_json
from fixres.pipelines.spec import InputError

_SECONDS_BETWEEN_CHECKPOINTS = 2.0  # about as much work is lost when a conversion is killed


class Journal:
    """The journal of one conversion. Checkpoints run in a thread, so that a slow disk does not stop the workers.

    Attributes:
        path: the file.
        entries: what an earlier process has written, until `start`.
        num_written: entries on disk.
    """

    def __init__(self, path: Path, header: dict[str, Any], restart: bool | None) -> None:
        """Reads an existing journal.

        Args:
            path: the file.
            header: what is converted and how.
            restart: ignore an existing journal; None ignores it if it is damaged or its header is different.

        Raises:
            InputError: the journal is damaged, or `restart` is False and its header is different.
        """
        self.path, self.num_written = path, 0
        self._header = json.loads(json.dumps(header))  # as it is read back: lists instead of tuples
        self.entries: list[Entry] = []
        try:
            if not restart:
                self.entries = _read(path, self._header)
        except InputError:
            if restart is False:
                raise
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future | None = None
        self._pending: list[Entry] = []
        self._last_checkpoint = time.monotonic()

    def start(self, entries: list[Entry]) -> None:
        """Replaces the file by one with `entries`; further ones are appended."""
        self.entries, self.num_written = [], len(entries)
        partial = self.path.with_name(self.path.name + ".new")
        try:
            with open(partial, "w", opener=open_own) as file:
                file.write(json.dumps(self._header) + "\n")
                file.writelines(map(_line, entries))
            put_in_place(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)

    def add(self, entry: Entry) -> None:
        """A sample is finished; the next checkpoint notes it."""
        self._pending.append(entry)

    def checkpoint_if_due(self, sync: Callable[[], None]) -> None:
        """Begins a checkpoint if it is time and none is running. Raises the error of the one before.

        `sync` returns when all data that was written so far is safe on disk.
        """
        if self._running is not None and not self._running.done():
            return
        if time.monotonic() - self._last_checkpoint < _SECONDS_BETWEEN_CHECKPOINTS:
            return
        self._wait()
        self._running = self._pool.submit(self._write, sync, self._pending)
        self._pending, self._last_checkpoint = [], time.monotonic()

    def checkpoint(self, sync: Callable[[], None]) -> None:
        """Notes all finished samples. Raises OSError if the disk is full or fails."""
        self._wait()
        pending, self._pending = self._pending, []
        self._write(sync, pending)

    def close(self) -> None:
        """Waits for a running checkpoint and ends the thread. Idempotent."""
        self._pool.shutdown(wait=True)

    def _wait(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.result()

    def _write(self, sync: Callable[[], None], entries: list[Entry]) -> None:
        sync()
        with open(self.path, "a", opener=open_own) as file:
            file.writelines(map(_line, entries))
            file.flush()
            os.fsync(file.fileno())
        self.num_written += len(entries)


def _line(entry: Entry) -> str:
    return json.dumps(entry) + "\n"


def _read(path: Path, header: dict[str, Any]) -> list[Entry]:
    """Entries of an existing journal. Raises InputError if its header is different or it is damaged."""
    try:
        text = path.read_text(errors="replace")  # undecodable bytes are reported as damage below
    except FileNotFoundError:
        return []
    lines = text.split("\n")[:-1]  # the text after the last line end is an incomplete line
    if not lines:
        return []
    try:
        found = decode_json(lines[0])
    except ValueError:
        raise InputError(f"{path} is not the journal of a conversion; remove it or discard it with --restart") from None
    if found != header:
        raise InputError(f"{path} belongs to a conversion {_differences(found, header)}, or discard it with --restart")
    return list(_entries(path, lines[1:]))


def _entries(path: Path, lines: Sequence[str]) -> Iterable[Entry]:
    for number, line in enumerate(lines):
        try:
            index, label, height, width, passed, sizes, problem, stamp = decode_json(line)
            yield Entry(index, label, height, width, passed, tuple(sizes), problem, stamp)
        except (ValueError, TypeError):
            raise InputError(f"{path}: line {number + 2} is damaged; discard the journal with --restart") from None


def _differences(found: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "with other settings; finish that one"
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    if names == ["files"]:
        return "with other sizes or times of the source's files, which were replaced since; restore them"
    if names == ["source"]:
        return "of other files or classes: some were added, removed or renamed since; restore them"
    values = ", ".join(f"{name}={found.get(name)} instead of {wanted.get(name)}" for name in names)
    return f"with {values}; finish that one"
