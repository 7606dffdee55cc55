"""The RoC record: what stands in the bytes beside a stored JPEG so that crops can be cut from it.

A sample of a RoC file has an image field, an ordinary baseline JPEG with a restart marker after every segment of
`interval` MCUs (level 0), and a `roc` field of bytes:

    4 words    magic, version, number of levels, size of the field in bytes
    12 words   for each level, see the constants below
    per level  the JPEG (levels above 0), then the length of each segment with its marker, 2 bytes each, scan order

All numbers are unsigned little endian, words have 4 bytes. Level k has 2**shift times fewer pixels a side, rounded up,
and pixel i of it covers pixels [i * 2**shift, (i + 1) * 2**shift) of the image. Records are files from strangers:
whatever is read here is checked against the sizes of the two fields before anything uses it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from pipelines.runtime.numba_cache import kernel
from pipelines.spec import InputError

MAGIC = 0x31436F52  # "RoC1"
VERSION = 1
MAX_LEVELS = 8
MAX_SHIFT = 15
MAX_SIDE = 65535
MAX_INTERVAL = 8  # keeps a segment's length within 2 bytes
MIN_HEADER = 100  # no baseline JPEG's headers are shorter
# libjpeg's fancy upsampling asks for three chroma samples a row; to a narrower image it repeats them, along both axes.
MAX_PLAIN_WIDTH = 4
_HEADER_WORDS, LEVEL_WORDS = 4, 12

# Words of a level, and so the columns of what `read_level` fills.
IN_IMAGE = 0  # 1 if the JPEG is the image field, 0 if it lies in this one
START = 1  # where the JPEG begins in that field
SIZE = 2  # bytes of the JPEG
HEIGHT = 3
WIDTH = 4
HEADER_SIZE = 5  # bytes from SOI to the first entropy-coded byte
SOF_HEIGHT = 6  # where the headers hold height and width, 2 bytes each, big endian
SHIFT = 7
MCU_HEIGHT = 8
MCU_WIDTH = 9
INTERVAL = 10
INDEX_START = 11  # where the segment lengths begin in this field

# What can be wrong with a sample. Kernels return these; `ERRORS` has the words.
OK = 0
OUTSIDE_FILE = 1
NOT_A_RECORD = 2
WRONG_VERSION = 3
BAD_LEVEL = 4
BAD_INDEX = 5
BAD_BOX = 6
NOT_DECODABLE = 7
TOO_LARGE = 8
WRONG_SIZE = 9
ERRORS = {
    OUTSIDE_FILE: "its bytes lie outside the file",
    NOT_A_RECORD: "its RoC record is damaged (no header)",
    WRONG_VERSION: "its RoC record has a version that this program does not know",
    BAD_LEVEL: "its RoC record is damaged (a level does not fit its sample)",
    BAD_INDEX: "its RoC record is damaged (a segment lies outside its image)",
    BAD_BOX: "the crop box lies outside the image",
    NOT_DECODABLE: "its JPEG data is corrupt",
    TOO_LARGE: "it has more pixels than a JPEG decoder should be trusted with (2**27)",
    WRONG_SIZE: "its JPEG header and the file's table disagree about its size",
}


@dataclass(frozen=True)
class Level:
    """One resolution of an image, as the encoder makes it."""

    jpeg: bytes
    height: int
    width: int
    header_size: int
    sof_height: int
    shift: int
    mcu_height: int
    mcu_width: int
    interval: int
    lengths: np.ndarray
    """uint16 (segments,): bytes of each segment with the marker behind it, in scan order."""


def pack(levels: list[Level]) -> bytes:
    """The `roc` field for a sample whose image field is levels[0].jpeg."""
    position = 4 * (_HEADER_WORDS + LEVEL_WORDS * len(levels))
    table, body = [], []
    for number, level in enumerate(levels):
        jpeg, index = b"" if number == 0 else level.jpeg, level.lengths.astype("<u2").tobytes()
        start = 0 if number == 0 else position
        table += [int(number == 0), start, len(level.jpeg), level.height, level.width, level.header_size]
        table += [level.sof_height, level.shift, level.mcu_height, level.mcu_width, level.interval]
        table += [position + len(jpeg)]
        body += [jpeg, index]
        position += len(jpeg) + len(index)
    header = [MAGIC, VERSION, len(levels), position]
    return struct.pack(f"<{len(header) + len(table)}I", *header, *table) + b"".join(body)


@kernel
def _word(field: np.ndarray, at: int) -> int:
    return field[at] | field[at + 1] << 8 | field[at + 2] << 16 | np.int64(field[at + 3]) << 24


@kernel
def num_levels(field: np.ndarray) -> int:
    """Levels of the record in a `roc` field (uint8), or minus an error code."""
    if field.size < 4 * _HEADER_WORDS or _word(field, 0) != MAGIC:
        return -NOT_A_RECORD
    if _word(field, 4) != VERSION:
        return -WRONG_VERSION
    levels = _word(field, 8)
    if not 1 <= levels <= MAX_LEVELS or _word(field, 12) != field.size:
        return -NOT_A_RECORD
    if 4 * (_HEADER_WORDS + LEVEL_WORDS * levels) > field.size:
        return -NOT_A_RECORD
    return levels


@kernel
def read_level(field: np.ndarray, number: int, image_size: int, height: int, width: int, level: np.ndarray) -> int:
    """Reads and checks one level, except for its segment lengths, which `cut` checks.

    Args:
        field: uint8, a `roc` field for which `num_levels` is above `number`.
        number: which level, from 0.
        image_size: bytes of the image field.
        height, width: of the image, as the file's table has them.
        level: int64 (12,), filled in.

    Returns:
        OK or an error code.
    """
    at = 4 * (_HEADER_WORDS + LEVEL_WORDS * number)
    for k in range(LEVEL_WORDS):
        level[k] = _word(field, at + 4 * k)
    store = image_size if level[IN_IMAGE] == 1 else field.size
    if level[IN_IMAGE] > 1 or level[START] + level[SIZE] > store or level[SHIFT] > MAX_SHIFT:
        return BAD_LEVEL
    round_up = (1 << level[SHIFT]) - 1
    if level[HEIGHT] != (height + round_up) >> level[SHIFT] or level[WIDTH] != (width + round_up) >> level[SHIFT]:
        return BAD_LEVEL
    if not (1 <= level[HEIGHT] <= MAX_SIDE and 1 <= level[WIDTH] <= MAX_SIDE):
        return BAD_LEVEL
    if level[HEADER_SIZE] < MIN_HEADER or level[HEADER_SIZE] > level[SIZE]:
        return BAD_LEVEL
    if not 2 <= level[SOF_HEIGHT] <= level[HEADER_SIZE] - 4:
        return BAD_LEVEL
    mcu_height, mcu_width = level[MCU_HEIGHT], level[MCU_WIDTH]
    if (mcu_height != 8 and mcu_height != 16) or (mcu_width != 8 and mcu_width != 16):
        return BAD_LEVEL
    if not 1 <= level[INTERVAL] <= MAX_INTERVAL or num_mcus(level[WIDTH], mcu_width) % level[INTERVAL] != 0:
        return BAD_LEVEL
    if level[INDEX_START] + 2 * num_rows(level) * num_columns(level) > field.size:
        return BAD_LEVEL
    return OK


@kernel
def num_mcus(side: int, mcu_side: int) -> int:
    """MCUs along `side` pixels."""
    return (side + mcu_side - 1) // mcu_side


@kernel
def num_rows(level: np.ndarray) -> int:
    """Rows of segments."""
    return num_mcus(level[HEIGHT], level[MCU_HEIGHT])


@kernel
def num_columns(level: np.ndarray) -> int:
    """Segments in a row."""
    return num_mcus(level[WIDTH], level[MCU_WIDTH] * level[INTERVAL])


@kernel
def choose_level(
    field: np.ndarray,
    image_size: int,
    height: int,
    width: int,
    box: np.ndarray,
    resolution: int,
    min_zoom: float,
    level: np.ndarray,
) -> int:
    """Reads the coarsest level on which the box still has `min_zoom` times the output's pixels a side.

    Args:
        field, image_size, height, width, level: as in `read_level`.
        box: float64 (4,): y, x, h, w in pixels of the image.
        resolution: output side in pixels.
        min_zoom: the quality knob; infinity always takes level 0.

    Returns:
        OK or an error code.
    """
    levels = num_levels(field)
    if levels < 0:
        return -levels
    wanted = min_zoom * resolution
    for number in range(levels - 1, -1, -1):
        error = read_level(field, number, image_size, height, width, level)
        if error != OK:
            return error
        if number == 0 or min(box[2], box[3]) >= wanted * (1 << level[SHIFT]):
            return OK if number > 0 or level[SHIFT] == 0 else BAD_LEVEL
    return BAD_LEVEL


def describe(field: bytes, image_size: int, height: int, width: int) -> list[dict[str, int]]:
    """The levels of a record by name, for people and for tests; raises InputError if the record is damaged."""
    data = np.frombuffer(field, np.uint8)
    levels = num_levels(data)
    if levels < 0:
        raise InputError(ERRORS[-levels])
    names = ["in_image", "start", "size", "height", "width", "header_size", "sof_height", "shift"]
    names += ["mcu_height", "mcu_width", "interval", "index_start"]
    table = []
    for number in range(levels):
        level = np.zeros(LEVEL_WORDS, np.int64)
        error = read_level(data, number, image_size, height, width, level)
        if error != OK:
            raise InputError(ERRORS[error])
        table.append(dict(zip(names, level.tolist(), strict=True)))
    return table
