"""Reads a table of structs from a MATLAB 5 file, as ILSVRC2012's devkit holds one. Nothing else of that format.

scipy reads all of it but is a large package for one table. The format is MathWorks' "MAT-File Format", chapter 1: a
header of 128 bytes, then elements of a tag (type, size) and data, which nest.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CHAR_TYPES = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRUCT, _CHAR = 2, 4
_NUMBERS = range(6, 16)
_MAX_BYTES = 64 << 20  # unpacked; the devkit's has about 1 MB
_MAX_ROWS = 100_000
_MAX_FIELDS = 100


class MatError(ValueError):
    """The bytes are not what they should be."""


class _Element(NamedTuple):
    type: int
    data: memoryview


def read_structs(data: bytes, variable: str, fields: Sequence[str]) -> list[tuple[str | float | None, ...]]:
    """Rows of a struct array: the given fields of each of its elements.

    Args:
        data: the whole file.
        variable: name of the struct array.
        fields: names of its fields.

    Returns:
        Texts as str, single numbers as float, anything else as None.

    Raises:
        MatError: no such table.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise MatError("no MATLAB 5 file")
    reader = _Reader("<" if data[126:128] == b"IM" else ">")
    try:
        for element in reader.elements(memoryview(data)[_HEADER:]):
            if element.type == _COMPRESSED:
                element = next(reader.elements(memoryview(_inflate(element.data))), element)
            if element.type == _MATRIX:
                rows = reader.rows(element.data, variable, fields)
                if rows is not None:
                    return rows
    except MatError:
        raise
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise MatError(f"damaged: {error or 'it ends early'}") from None
    raise MatError(f"no variable {variable!r}")


def _inflate(data: memoryview) -> bytes:
    inflater = zlib.decompressobj()
    unpacked = inflater.decompress(data, _MAX_BYTES)
    if not inflater.eof:
        raise MatError(f"a compressed part is cut off or unpacks to more than {_MAX_BYTES >> 20} MiB")
    return unpacked


def _take(elements: Iterator[_Element], num: int) -> list[_Element]:
    taken = list(islice(elements, num))
    if len(taken) < num:
        raise MatError("damaged: it ends early")
    return taken


class _Reader:
    """Parses elements of one byte order ("<" or ">")."""

    def __init__(self, order: str) -> None:
        self._order = order

    def elements(self, data: memoryview) -> Iterator[_Element]:
        """The elements that `data` is made of, one after another."""
        position = 0
        while position < len(data):
            (word,) = struct.unpack_from(f"{self._order}I", data, position)
            if word >> 16:  # a small element: type, size and data in eight bytes
                kind, size, start, end = word & 0xFFFF, word >> 16, position + 4, position + 8
                if size > 4:
                    raise MatError(f"damaged: a small element of {size} bytes")
            else:
                kind, size = struct.unpack_from(f"{self._order}II", data, position)
                start = position + 8
                end = start + size if kind == _COMPRESSED else start + -(-size // 8) * 8
            if start + size > len(data):
                raise MatError("damaged: it ends early")
            yield _Element(kind, data[start : start + size])
            position = end

    def rows(self, matrix: memoryview, variable: str, fields: Sequence[str]) -> list[tuple] | None:
        """The rows of a matrix, or None if it is another variable."""
        parts = self.elements(matrix)
        flags, dimensions, name = _take(parts, 3)
        if bytes(name.data) != variable.encode():
            return None
        if self._class(flags) != _STRUCT:
            raise MatError(f"{variable!r} is no struct array")
        names = self._field_names(*_take(parts, 2))
        missing = [field for field in fields if field not in names]
        if missing:
            raise MatError(f"{variable!r} has no field {missing[0]!r}")
        num = 1
        for side in np.frombuffer(dimensions.data, f"{self._order}i4").tolist():
            num *= side
        if not 0 <= num <= _MAX_ROWS:
            raise MatError(f"{variable!r} has {num} rows")
        return [self._row(parts, names, fields) for _ in range(num)]

    def _row(self, parts: Iterator[_Element], names: Sequence[str], fields: Sequence[str]) -> tuple:
        cells = dict(zip(names, _take(parts, len(names)), strict=True))
        return tuple(self._value(cells[field]) for field in fields)

    def _field_names(self, length: _Element, names: _Element) -> list[str]:
        (size,) = struct.unpack_from(f"{self._order}i", length.data)
        if size < 1 or len(names.data) > size * _MAX_FIELDS:
            raise MatError("damaged: its fields have no proper names")
        text = bytes(names.data)
        return [text[i : i + size].split(b"\0")[0].decode("latin-1") for i in range(0, len(text), size)]

    def _value(self, cell: _Element) -> str | float | None:
        """A text or a single number."""
        if cell.type != _MATRIX or not len(cell.data):
            return None
        parts = self.elements(cell.data)
        flags, _, _, content = _take(parts, 4)
        kind = self._class(flags)
        if kind == _CHAR and content.type in _CHAR_TYPES:
            return self._text(content)
        if kind in _NUMBERS and content.type in _NUMBER_TYPES:
            dtype = np.dtype(f"{self._order}{_NUMBER_TYPES[content.type]}")
            return float(np.frombuffer(content.data, dtype)[0]) if len(content.data) == dtype.itemsize else None
        return None

    def _text(self, content: _Element) -> str:
        encoding = _CHAR_TYPES[content.type]
        return bytes(content.data).decode(encoding + {"<": "-le", ">": "-be"}[self._order] * (encoding == "utf-16"))

    def _class(self, flags: _Element) -> int:
        (word,) = struct.unpack_from(f"{self._order}I", flags.data)
        return word & 0xFF
