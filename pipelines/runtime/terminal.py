"""What is printed reaches a terminal as text: control characters in names of files and classes are escaped."""

from __future__ import annotations

from typing import Any, TextIO

from fixres.pipelines.spec import one_line

_CURSOR_UP = "\x1b[A"  # how tqdm reaches the bar above


class PrintableStream:
    """A text stream that escapes everything unprintable but line ends.

    A name such as "\\x1b]0;..." would otherwise command the terminal: change its title, colors or earlier lines.
    """

    def __init__(self, stream: TextIO, has_bars: bool = False) -> None:
        """With `has_bars`, what progress bars write stays: returns at the ends of a text, and a moved cursor."""
        self._stream, self._has_bars = stream, has_bars

    def write(self, text: str) -> int:
        """Writes `text`; returns its length, as any stream does."""
        self._stream.write(self._printable(text))
        return len(text)

    def _printable(self, text: str) -> str:
        if not text.replace(_CURSOR_UP, "").strip() and self._has_bars:
            return text
        inner = text.strip("\r") if self._has_bars else text
        start = text.index(inner)
        plain = "\n".join(map(one_line, inner.split("\n")))
        return text[:start] + plain + text[start + len(inner) :]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
