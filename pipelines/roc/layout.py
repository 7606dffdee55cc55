"""The RoC record: the bytes beside a stored JPEG that make crops of it cheap to read.

A sample of a RoC file has two fields. The image field is level 0: an ordinary baseline JPEG with a restart marker after
every segment of `interval` MCUs. The `roc` field holds:

    4 words    magic, version, number of levels, size of the field in bytes
    12 words   for each level, see the constants below
    per level  the JPEG (levels above 0), then the size of each segment with its marker, 2 bytes each, in scan order

All numbers are unsigned and little endian; a word has 4 bytes. Level k has 2**shift times fewer pixels a side, rounded
up. Its pixel i covers pixels [i * 2**shift, (i + 1) * 2**shift) of the image. Records are untrusted input: everything
read here is checked against the sizes of the two fields before it is used.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from fixres.pipelines.runtime.numba_cache import kernel
from fixres.pipelines.spec import InputError

MAGIC = 0x31436F52  # "RoC1"
VERSION = 1
MAX_LEVELS = 8
MAX_SHIFT = 15
MAX_SIDE = 65535
MAX_PIXELS = 1 << 27  # of a decoded window; a decoder's planes then need at most 400 MB
MAX_INTERVAL = 8  # keeps a segment's size within 2 bytes
MIN_HEADER = 100  # no baseline JPEG has shorter headers
# libjpeg's fancy upsampling needs three chroma samples a row. In a narrower image it repeats them, along both axes.
MAX_PLAIN_WIDTH = 4
_HEADER_WORDS, LEVEL_WORDS = 4, 12

# Markers of JPEG files, their second bytes.
SOI, SOF0, DHT, SOS, DQT, DRI, APP0, APP15, COM = 0xD8, 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xEF, 0xFE

# Columns of a sample table: where a sample lies in the file, and the size of its image.
IMAGE_START, IMAGE_SIZE, ROC_START, ROC_SIZE, IMAGE_HEIGHT, IMAGE_WIDTH = range(6)
NUM_SAMPLE_COLUMNS = 6

# Columns of the counts that the batch kernels fill: bytes read, pixels decoded, shift of the level.
BYTES, PIXELS, LEVEL_SHIFT = range(3)
NUM_COUNTS = 3

# Words of a level, which are also the columns that `read_level` fills.
IN_IMAGE = 0  # 1 if the JPEG is the image field, 0 if it lies in the `roc` field
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
INDEX_START = 11  # where the segment sizes begin in the `roc` field

# Error codes of the kernels.
OK, OUTSIDE_FILE, NOT_A_RECORD, WRONG_VERSION, BAD_LEVEL, BAD_INDEX = range(6)
BAD_BOX, NOT_DECODABLE, TOO_LARGE, WRONG_SIZE, NOT_AS_INDEXED = range(6, 11)
ERRORS = {
    OUTSIDE_FILE: "its bytes lie outside the file",
    NOT_A_RECORD: "its RoC record is damaged (no header)",
    WRONG_VERSION: "its RoC record has a version that this program does not know",
    BAD_LEVEL: "its RoC record is damaged (a level does not fit its sample)",
    BAD_INDEX: "its RoC record is damaged (a segment lies outside its image)",
    BAD_BOX: "the crop box lies outside the image",
    NOT_DECODABLE: "its JPEG data is corrupt",
    TOO_LARGE: "it has more than 2**27 pixels, the limit of the decoder",
    WRONG_SIZE: "its JPEG header and the file's table disagree about its size",
    NOT_AS_INDEXED: "its bytes are not those that were indexed",
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
    """The `roc` field of a sample whose image field is levels[0].jpeg."""
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
def check_bounds(sample: np.ndarray, file_size: int, box: np.ndarray) -> int:
    """Checks that a sample's fields lie in the file and that its box lies in the image; returns OK or an error code.

    Args:
        sample: int64 (6,), a row of a sample table.
        file_size: bytes.
        box: float64 (4,): y, x, h, w in pixels of the image.
    """
    for start, size in ((sample[IMAGE_START], sample[IMAGE_SIZE]), (sample[ROC_START], sample[ROC_SIZE])):
        if start < 0 or size < 0 or start > file_size or size > file_size - start:
            return OUTSIDE_FILE
    return check_box(box, sample[IMAGE_HEIGHT], sample[IMAGE_WIDTH])


@kernel
def check_box(box: np.ndarray, height: int, width: int) -> int:
    """Checks that an image has a size and that a box lies in it; returns OK or an error code."""
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        return WRONG_SIZE
    slack = 1e-6  # a NaN fails each of these comparisons
    if box[0] >= -slack and box[1] >= -slack and box[2] > 0 and box[3] > 0:
        if box[0] + box[2] <= height + slack and box[1] + box[3] <= width + slack:
            return OK
    return BAD_BOX


@kernel
def sample_fields(data: np.ndarray, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image field and the `roc` field of a sample that passed `check_bounds`."""
    image = data[sample[IMAGE_START] : sample[IMAGE_START] + sample[IMAGE_SIZE]]
    return image, data[sample[ROC_START] : sample[ROC_START] + sample[ROC_SIZE]]


@kernel
def _word(field: np.ndarray, at: int) -> int:
    return field[at] | field[at + 1] << 8 | field[at + 2] << 16 | np.int64(field[at + 3]) << 24


@kernel
def num_levels(field: np.ndarray) -> int:
    """Number of levels in a `roc` field (uint8), or minus an error code."""
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
    """Reads and checks one level. Its segment sizes are checked later, by `cut.write_cut` and the decoder.

    Args:
        field: uint8, a `roc` field with more than `number` levels.
        number: which level, from 0.
        image_size: bytes of the image field.
        height, width: of the image, from the file's table.
        level: int64 (12,), filled.

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

    Kernels take arrays instead of objects: many parameters.

    Args:
        field, image_size, height, width, level: as in `read_level`.
        box: float64 (4,): y, x, h, w in pixels of the image.
        resolution: output side in pixels.
        min_zoom: quality setting; infinity always takes level 0.

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
    """The levels of a record with named entries, for display and tests.

    Raises:
        InputError: the record is damaged.
    """
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
