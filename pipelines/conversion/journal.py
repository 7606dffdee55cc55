"""What an unfinished conversion has done so far, as a text file that survives the process.

The first line is a JSON object that tells what is being converted and how; each further line is one sample that is
done, in the order of writing. Lines are written only after the data they speak of is safe on disk, so whatever the
journal says is there. A line that was cut off by the end of the process does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pipelines.formats.entry import Entry
from pipelines.spec import InputError


class Journal:
    """The open journal of one conversion.

    Attributes:
        path: the file.
        entries: what was found, until `keep` decides what of it stays.
        num_written: entries on disk.
    """

    def __init__(self, path: Path, header: dict[str, Any], restart: bool | None) -> None:
        """Opens or begins a journal.

        Args:
            path: of the journal.
            header: what is converted and how; must be what an existing journal says.
            restart: forget an existing journal; None forgets it if it is of another conversion.
        """
        self.path = path
        self.num_written = 0
        self._header = json.loads(json.dumps(header))  # as it comes back from disk: lists for tuples
        self.entries: list[Entry] = [] if restart else _read(path, self._header, refuse=restart is False)
        self._file: Any = None

    def keep(self, entries: list[Entry]) -> None:
        """Begins the file anew with `entries`, and goes on behind them."""
        self.entries, self.num_written = [], len(entries)
        partial = self.path.with_name(self.path.name + ".new")
        try:
            with open(partial, "w") as file:
                file.write(json.dumps(self._header) + "\n")
                file.writelines(map(_line, entries))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)
        self._file = open(self.path, "a")

    def write(self, entries: list[Entry]) -> None:
        """Notes samples; their data must be safe on disk already."""
        self._file.writelines(map(_line, entries))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.num_written += len(entries)

    def close(self) -> None:
        """Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _line(entry: Entry) -> str:
    return json.dumps(entry) + "\n"


def _read(path: Path, header: dict[str, Any], refuse: bool) -> list[Entry]:
    """Entries of an existing journal. One of another conversion is an error, or as good as none."""
    try:
        text = path.read_text(errors="replace")  # bytes that are no text are damage as well
    except FileNotFoundError:
        return []
    lines = text.split("\n")[:-1]  # what stands behind the last line end was cut off
    if not lines:
        return []
    try:
        found = json.loads(lines[0])
    except ValueError:
        raise InputError(f"{path} is no journal of a conversion; remove it or start afresh with --restart") from None
    if found != header and not refuse:
        return []
    if found != header:
        raise InputError(
            f"{path} belongs to a conversion with {_differences(found, header)}; finish that one, "
            "or start afresh with --restart"
        )
    return list(_entries(path, lines[1:]))


def _entries(path: Path, lines: Sequence[str]) -> Iterable[Entry]:
    for number, line in enumerate(lines):
        try:
            index, label, height, width, passed, sizes, problem = json.loads(line)
            entry = Entry(index, label, height, width, passed, tuple(sizes), problem)
        except (ValueError, TypeError):
            raise InputError(f"{path}: line {number + 2} is damaged; start afresh with --restart") from None
        yield entry


def _differences(found: Any, wanted: dict[str, Any]) -> str:
    if not isinstance(found, dict):
        return "other settings"
    names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
    return ", ".join(f"{name}={found.get(name)} instead of {wanted.get(name)}" for name in names)
