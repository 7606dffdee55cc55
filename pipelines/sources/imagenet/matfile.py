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

import numpy as np

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_TEXT_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16"}
_NUMBER_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_STRUCT_CLASS, _CHAR_CLASS, _NUMBER_CLASSES = 2, 4, range(6, 16)
_MAX_BYTES = 64 << 20  # uncompressed; the devkit's file has about 1 MB
_MAX_ROWS = 100_000
_MAX_FIELDS = 100

_Element = tuple[int, memoryview]  # type and data


class MatError(Exception):
    """The bytes are not a MATLAB 5 file with the wanted table."""


def read_structs(data: bytes, variable: str, fields: Sequence[str]) -> list[tuple[str | float | None, ...]]:
    """Reads the given fields of each element of the struct array `variable`.

    Returns:
        A row for each struct. Texts are str, single numbers are float, everything else is None.

    Raises:
        MatError: the file is damaged or has no such table.
    """
    if len(data) < _HEADER or data[126:128] not in (b"IM", b"MI"):
        raise MatError("not a MATLAB 5 file")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        for kind, content in _elements(memoryview(data)[_HEADER:], order):
            if kind == _COMPRESSED:
                kind, content = next(_elements(_inflate(content), order), (kind, content))
            if kind == _MATRIX and (rows := _rows(content, order, variable, fields)) is not None:
                return rows
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise MatError(f"damaged: {error or 'it ends early'}") from None
    raise MatError(f"no variable {variable!r}")


def _inflate(data: memoryview) -> memoryview:
    inflater = zlib.decompressobj()
    unpacked = inflater.decompress(data, _MAX_BYTES)
    if not inflater.eof:
        raise MatError(f"a compressed part is cut off or unpacks to more than {_MAX_BYTES >> 20} MiB")
    return memoryview(unpacked)


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Yields the consecutive elements of `data` in byte order "<" or ">"."""
    position = 0
    while position < len(data):
        (word,) = struct.unpack_from(f"{order}I", data, position)
        if word >> 16:  # a small element: type, size and data in eight bytes
            kind, size, start, end = word & 0xFFFF, word >> 16, position + 4, position + 8
            if size > 4:
                raise MatError(f"damaged: a small element of {size} bytes")
        else:
            kind, size = struct.unpack_from(f"{order}II", data, position)
            start = position + 8
            end = start + size if kind == _COMPRESSED else start + -(-size // 8) * 8
        if start + size > len(data):
            raise MatError("damaged: it ends early")
        yield kind, data[start : start + size]
        position = end


def _take(elements: Iterator[_Element], num: int) -> list[_Element]:
    taken = list(islice(elements, num))
    if len(taken) < num:
        raise MatError("damaged: it ends early")
    return taken


def _rows(matrix: memoryview, order: str, variable: str, fields: Sequence[str]) -> list[tuple] | None:
    """The rows of a matrix, or None if it is another variable."""
    parts = _elements(matrix, order)
    (_, flags), (_, dimensions), (_, name) = _take(parts, 3)
    if bytes(name) != variable.encode():
        return None
    if _class(flags, order) != _STRUCT_CLASS:
        raise MatError(f"{variable!r} is not a struct array")
    (_, length), (_, text) = _take(parts, 2)
    (size,) = struct.unpack_from(f"{order}i", length)
    if size < 1 or len(text) > size * _MAX_FIELDS:
        raise MatError("damaged: its field names are invalid")
    names = [bytes(text[i : i + size]).split(b"\0")[0].decode("latin-1") for i in range(0, len(text), size)]
    if missing := [field for field in fields if field not in names]:
        raise MatError(f"{variable!r} has no field {missing[0]!r}")
    num = math.prod(np.frombuffer(dimensions, f"{order}i4").tolist())
    if not 0 <= num <= _MAX_ROWS:
        raise MatError(f"{variable!r} has {num} rows")
    structs = (dict(zip(names, _take(parts, len(names)), strict=True)) for _ in range(num))
    return [tuple(_value(*cells[field], order) for field in fields) for cells in structs]


def _value(kind: int, cell: memoryview, order: str) -> str | float | None:
    """A text or a single number."""
    if kind != _MATRIX or not len(cell):
        return None
    (_, flags), _, _, (content_type, content) = _take(_elements(cell, order), 4)
    if _class(flags, order) == _CHAR_CLASS and content_type in _TEXT_ENCODINGS:
        encoding = _TEXT_ENCODINGS[content_type]
        byte_order = {"<": "-le", ">": "-be"}[order] if encoding == "utf-16" else ""
        return bytes(content).decode(encoding + byte_order)
    if _class(flags, order) in _NUMBER_CLASSES and content_type in _NUMBER_TYPES:
        dtype = np.dtype(f"{order}{_NUMBER_TYPES[content_type]}")
        return float(np.frombuffer(content, dtype)[0]) if len(content) == dtype.itemsize else None
    return None


def _class(flags: memoryview, order: str) -> int:
    (word,) = struct.unpack_from(f"{order}I", flags)
    return word & 0xFF
