"""The layout of FFCV's .beton files, version 2, little-endian throughout. Reader and writer share it.

| where                          | what                                                                              |
|--------------------------------|-----------------------------------------------------------------------------------|
| 0                              | `HEADER`, 24 bytes                                                                |
| 24                             | `DESCRIPTOR` for each field, 1041 bytes: type id, name (ASCII, NUL padded),       |
|                                | 1024 bytes of arguments (all zero for the types we write, but see below)          |
| 24 + 1041 fields               | metadata: one aligned struct per sample, see `metadata_dtype`                     |
| next multiple of the page size | data pages; all allocations of a sample lie within one page                       |
| `alloc_table_ptr`, to the end  | `ALLOCATION` for each byte string: sample, absolute position, size                |

The size of a JPEG is only in the allocation table, in the row with its position. The page size is a power of two
(ffcv writes 2 MiB to 2 GiB, 8 MiB by default).

The format has no field for class names or a checksum. We store `INFO_POINTER` in the first field's arguments, where
ffcv writes zeros and never reads. It points to a JSON object {"classes": [...]} between the metadata and the first
page. Its checksum (CRC-32) covers the header, type ids and names, metadata, allocation table and that JSON text. Files
without it, as ffcv writes them, have numbers as class names.
"""

from __future__ import annotations

import zlib

import numpy as np

VERSION = 2
MIN_PAGE_SIZE = 1 << 21  # a huge page
MAX_PAGE_SIZE = 1 << 31
DEFAULT_PAGE_SIZE = 1 << 23
MAX_FIELDS = 64  # our limit; the format allows 65535, but NumPy's struct types get slow
MODE_JPG, MODE_RAW = 0, 1
INFO_MAGIC = b"fixres01"

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
DESCRIPTOR = np.dtype([("type_id", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
IMAGE = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
BYTES = np.dtype([("ptr", "<u8"), ("size", "<u8")])
INFO_POINTER = np.dtype([("magic", "S8"), ("offset", "<u8"), ("size", "<u8"), ("crc32", "<u4")])

TYPE_FLOAT, TYPE_INT, TYPE_IMAGE, TYPE_BYTES, TYPE_NDARRAY, TYPE_JSON, TYPE_TENSOR = range(7)
_METADATA = {
    TYPE_FLOAT: np.dtype("<f8"),
    TYPE_INT: np.dtype("<i8"),
    TYPE_IMAGE: IMAGE,
    TYPE_BYTES: BYTES,
    TYPE_NDARRAY: np.dtype("<u8"),
    TYPE_JSON: BYTES,
    TYPE_TENSOR: np.dtype("<u8"),
}


def metadata_dtype(type_ids: list[int]) -> np.dtype:
    """The struct of one sample: fields f0, f1, ... aligned as in C; nested structs are byte-aligned.

    Raises:
        KeyError: the type id is not one of ffcv's, so its size is unknown.
    """
    return np.dtype([(f"f{k}", _METADATA[type_id]) for k, type_id in enumerate(type_ids)], align=True)


def metadata_start(num_fields: int) -> int:
    """Position of the first sample's metadata in bytes."""
    return HEADER.itemsize + num_fields * DESCRIPTOR.itemsize


def align(position: int, page_size: int) -> int:
    """The next multiple of `page_size` at or after `position`."""
    return -(-position // page_size) * page_size


def checksum(header: np.ndarray, descriptors: np.ndarray, *tables: bytes | np.ndarray) -> int:
    """CRC-32 of everything a reader relies on, except the image bytes."""
    crc = zlib.crc32(header.tobytes())
    for descriptor in descriptors:
        crc = zlib.crc32(descriptor["type_id"].tobytes() + descriptor["name"].tobytes(), crc)
    for table in tables:
        crc = zlib.crc32(table, crc)
    return crc
