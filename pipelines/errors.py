"""Errors that are the user's: a mistake in a call, or bad data."""

from __future__ import annotations


class InputError(ValueError):
    """A user's mistake or bad data. The message is one line: what is wrong, where, and the remedy.

    Characters of file names that would break the line or control the terminal are escaped.
    """

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """`text` with unprintable characters escaped. Lone surrogates (bytes of names that are not UTF-8) are kept."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(character: str) -> str:
    if character.isprintable() or "\ud800" <= character <= "\udfff":
        return character
    return character.encode("unicode_escape").decode("ascii")


class BadSampleError(InputError):
    """One stored sample cannot be used.

    Attributes:
        index: the sample's index in the data set, or -1 if the engine does not know it.
    """

    def __init__(self, message: str, index: int = -1) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple:
        # Exceptions of worker processes are pickled; the default would call __init__ without the index.
        return type(self), (str(self), self.index)
