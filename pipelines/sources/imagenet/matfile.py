"""Reads an array of structs from a MATLAB 5 file: the table of synsets in ILSVRC2012's devkit.

`scipy.io.loadmat` (1.17) is not used because it is unsafe for untrusted files: a few changed bytes or 30,000 nested
cells end the process with a segmentation fault. The format is MathWorks' "MAT-File Format", chapter 1: a header of 128
bytes, then elements, each with a tag (type and size) and data. Elements nest.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TEXT_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRUCT_CLASS, _CHAR_CLASS, _NUMBER_CLASSES = 2, 4, range(6, 16)
_MAX_BYTES = 64 << 20  # uncompressed; the devkit's file has about 1 MB
_MAX_ROWS = 100_000
_MAX_FIELDS = 100


class MatError(ValueError):
    """The bytes are not a MATLAB 5 file with the wanted table."""


class _Element(NamedTuple):
    type: int
    data: memoryview


def read_structs(data: bytes, variable: str, fields: Sequence[str]) -> list[tuple[str | float | None, ...]]:
    """Reads the given fields of each element of a struct array.

    Args:
        data: the whole file.
        variable: name of the struct array.
        fields: names of its fields.

    Returns:
        A row for each struct. Texts are str, single numbers are float, everything else is None.

    Raises:
        MatError: the file is damaged or has no such table.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise MatError("not a MATLAB 5 file")
    reader = _Reader("<" if data[126:128] == b"IM" else ">")
    try:
        for element in reader.elements(memoryview(data)[_HEADER:]):
            if element.type == _COMPRESSED:
                element = next(reader.elements(_inflate(element.data)), element)
            if element.type == _MATRIX:
                rows = reader.rows(element.data, variable, fields)
                if rows is not None:
                    return rows
    except MatError:
        raise
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise MatError(f"damaged: {error or 'it ends early'}") from None
    raise MatError(f"no variable {variable!r}")


def _inflate(data: memoryview) -> memoryview:
    inflater = zlib.decompressobj()
    unpacked = inflater.decompress(data, _MAX_BYTES)
    if not inflater.eof:
        raise MatError(f"a compressed part is cut off or unpacks to more than {_MAX_BYTES >> 20} MiB")
    return memoryview(unpacked)


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
        """Yields the consecutive elements of `data`."""
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
        if self._class(flags) != _STRUCT_CLASS:
            raise MatError(f"{variable!r} is not a struct array")
        names = self._field_names(*_take(parts, 2))
        missing = [field for field in fields if field not in names]
        if missing:
            raise MatError(f"{variable!r} has no field {missing[0]!r}")
        num = math.prod(np.frombuffer(dimensions.data, f"{self._order}i4").tolist())
        if not 0 <= num <= _MAX_ROWS:
            raise MatError(f"{variable!r} has {num} rows")
        structs = (dict(zip(names, _take(parts, len(names)), strict=True)) for _ in range(num))
        return [tuple(self._value(cells[field]) for field in fields) for cells in structs]

    def _field_names(self, length: _Element, names: _Element) -> list[str]:
        (size,) = struct.unpack_from(f"{self._order}i", length.data)
        if size < 1 or len(names.data) > size * _MAX_FIELDS:
            raise MatError("damaged: its field names are invalid")
        text = bytes(names.data)
        return [text[i : i + size].split(b"\0")[0].decode("latin-1") for i in range(0, len(text), size)]

    def _value(self, cell: _Element) -> str | float | None:
        """A text or a single number."""
        if cell.type != _MATRIX or not len(cell.data):
            return None
        flags, _, _, content = _take(self.elements(cell.data), 4)
        kind = self._class(flags)
        if kind == _CHAR_CLASS and content.type in _TEXT_ENCODINGS:
            encoding = _TEXT_ENCODINGS[content.type]
            byte_order = {"<": "-le", ">": "-be"}[self._order] if encoding == "utf-16" else ""
            return bytes(content.data).decode(encoding + byte_order)
        if kind in _NUMBER_CLASSES and content.type in _NUMBER_TYPES:
            dtype = np.dtype(f"{self._order}{_NUMBER_TYPES[content.type]}")
            return float(np.frombuffer(content.data, dtype)[0]) if len(content.data) == dtype.itemsize else None
        return None

    def _class(self, flags: _Element) -> int:
        (word,) = struct.unpack_from(f"{self._order}I", flags.data)
        return word & 0xFF
