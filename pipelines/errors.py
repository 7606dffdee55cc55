"""Errors that are the user's: a mistake in a call, or bad data."""

from __future__ import annotations

_MAX_LENGTH = 1500


class InputError(ValueError):
    """A user's mistake or bad data. The message is one line: what is wrong, where, and the remedy.

    Characters of file names that would break the line or control the terminal are escaped. Of a very long message,
    which has text of a file in it, beginning and end are kept.
    """

    def __init__(self, message: str) -> None:
        line = one_line(message if len(message) <= _MAX_LENGTH else message[: 2 * _MAX_LENGTH] + message[-_MAX_LENGTH:])
        if len(line) > _MAX_LENGTH:
            line = f"{line[: _MAX_LENGTH // 2]} ... {line[-_MAX_LENGTH // 3 :]}"
        super().__init__(line)


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
