"""The headers of a JPEG as the index needs them: what kind of file it is, and where its entropy-coded data begins."""

from __future__ import annotations

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
from fixres.pipelines.roc.decoder.jpeg_tables import Tables, read_tables
from fixres.pipelines.roc.layout import APP0, DHT, DRI, SOF0, SOI, SOS
from fixres.pipelines.runtime.numba_cache import kernel

_SOF2, _FIRST_ARITHMETIC, _LAST_FRAME, _APP14 = 0xC2, 0xC9, 0xCF, 0xEE
_JFIF, _ADOBE, _RGB = (np.frombuffer(name, np.uint8) for name in (b"JFIF\0", b"Adobe", b"RGB"))
_NUMBERED = np.array([1, 2, 3], np.uint8)
_MIN_BLOCK_BITS = 2  # a DC and an AC code
# What the segments say about colors: Adobe's color transform, or none; whether there is a JFIF segment.
_NO_ADOBE, _ADOBE_YCBCR = -1, 1


@kernel
def read_headers(jpeg: np.ndarray, sample: np.ndarray, tables: Tables) -> int:
    """Reads the headers of a file.

    Args:
        jpeg: uint8, the file; untrusted.
        sample: int64 (NUM_SAMPLE_COLUMNS,). HEIGHT and WIDTH are filled if the file has a frame, all others except
            KIND, FIRST and DATA_SIZE if it can be indexed.
        tables: filled.

    Returns:
        `checkpoints.INDEXED`, or the reason why the file has to be decoded whole.
    """
    if jpeg.size < 4 or jpeg[0] != 0xFF or jpeg[1] != SOI:
        return checkpoints.NOT_JPEG
    at, frame, jfif, adobe = 2, 0, False, _NO_ADOBE
    sample[checkpoints.RESTART_INTERVAL] = 0
    while at + 4 <= jpeg.size and jpeg[at] == 0xFF:
        marker, body = jpeg[at + 1], at + 4
        end = at + 2 + (np.int64(jpeg[at + 2]) << 8 | jpeg[at + 3])
        if end < body or end > jpeg.size:
            return checkpoints.DAMAGED
        if marker == APP0:
            jfif = jfif or (end - body >= 12 and _equal(jpeg, body, _JFIF))
        elif marker == _APP14:
            if end - body >= 12 and _equal(jpeg, body, _ADOBE):
                adobe = np.int64(jpeg[body + 11])
        elif SOF0 <= marker <= _LAST_FRAME and marker != DHT:
            kind, frame = _frame_kind(jpeg, marker, body, end), body
            if end - body >= 6:
                sample[checkpoints.HEIGHT] = np.int64(jpeg[body + 1]) << 8 | jpeg[body + 2]
                sample[checkpoints.WIDTH] = np.int64(jpeg[body + 3]) << 8 | jpeg[body + 4]
            if kind != checkpoints.INDEXED:
                return kind
        elif marker == DRI and end - body == 2:
            sample[checkpoints.RESTART_INTERVAL] = np.int64(jpeg[body]) << 8 | jpeg[body + 1]
        elif marker == SOS:
            if frame > 0 and end > body and jpeg[body] < jpeg[frame + 5]:
                return checkpoints.MULTI_SCAN
            if not read_tables(jpeg[:end], tables) or not _known_colors(jpeg, frame, jfif, adobe):
                return checkpoints.ODD
            return _fill(jpeg.size, end, tables.frame, sample)
        at = end
    return checkpoints.DAMAGED


@kernel
def _equal(jpeg: np.ndarray, at: int, name: np.ndarray) -> bool:
    for k in range(name.size):
        if jpeg[at + k] != name[k]:
            return False
    return True


@kernel
def _frame_kind(jpeg: np.ndarray, marker: int, body: int, end: int) -> int:
    if marker >= _FIRST_ARITHMETIC:
        return checkpoints.ARITHMETIC
    if marker == _SOF2:
        return checkpoints.PROGRESSIVE
    if end - body < 6:
        return checkpoints.DAMAGED
    if jpeg[body] == 12:
        return checkpoints.TWELVE_BIT
    if jpeg[body + 5] == 4:
        return checkpoints.CMYK
    return checkpoints.INDEXED if marker == SOF0 else checkpoints.ODD


@kernel
def _known_colors(jpeg: np.ndarray, frame: int, jfif: bool, adobe: int) -> bool:
    """Whether a file is gray, or YCbCr beyond doubt; `frame` is the position of a frame that `read_tables` accepted."""
    if jpeg[frame + 5] == 1:
        return True
    ids = jpeg[frame + 6 : frame + 15 : 3]
    if adobe == _NO_ADOBE:
        return not _equal(ids, 0, _RGB) and (jfif or _equal(ids, 0, _NUMBERED))
    return adobe == _ADOBE_YCBCR and not _equal(ids, 0, _RGB)


@kernel
def _fill(size: int, header_size: int, frame: np.ndarray, sample: np.ndarray) -> int:
    height, width, count, rows, columns = frame
    if height == 0 or width == 0:  # the height may stand behind the pixels (DNL marker)
        return checkpoints.ODD
    num_mcus = checkpoints.num_mcus(height, rows) * checkpoints.num_mcus(width, columns)
    if num_mcus * (rows * columns + count - 1) * _MIN_BLOCK_BITS > 8 * (size - header_size):
        return checkpoints.DAMAGED
    sample[checkpoints.HEADER_SIZE], sample[checkpoints.NUM_COMPONENTS] = header_size, count
    sample[checkpoints.BLOCK_ROWS], sample[checkpoints.BLOCK_COLUMNS] = rows, columns
    return checkpoints.INDEXED
