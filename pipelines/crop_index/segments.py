"""Lays out the data between checkpoints as segments, the form in which `roc.decoder.entropy` decodes it.

A segment begins at a checkpoint or at a restart marker and ends at the next one. At a checkpoint, the position and the
DC values that the decoder has reached are compared with it. So a wrong checkpoint that a crop passes is noticed.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
import fixres.pipelines.roc.decoder.entropy as entropy
from fixres.pipelines.crop_index.window import Window
from fixres.pipelines.roc.decoder.unstuffing import unstuff
from fixres.pipelines.runtime.numba_cache import kernel

_RST = 0xD0
_UNKNOWN = 1 << 40  # bits that may be left of a segment that is not decoded to its end
# A stretch from one checkpoint to the next, int64: number of its first MCU in the file, its MCUs, those before the
# window, those to decode; the position of its words; first byte and bits to skip in it; the end of its bytes; bits of
# its last byte that belong to the next one; whether it ends at a marker.
_FIRST_MCU, _MCUS, _BEFORE, _NEEDED, _WORDS, _START, _BITS, _END, _NEXT_BITS, _AT_MARKER = range(10)
_NUM_STRETCH = 10


@kernel
def position(words: np.ndarray, at: int) -> int:
    """The position of a checkpoint in bits."""
    return np.int64(words[at]) | np.int64(words[at + 1]) << 16


@kernel
def count_segments(sample: np.ndarray, window: Window) -> int:
    """The most segments that a window can have."""
    step, interval = checkpoints.spacing(sample), sample[checkpoints.RESTART_INTERVAL]
    parts = step // interval + 2 if interval > 0 else 1
    stretches = (window.columns[1] - 1) // step - window.columns[0] // step + 1
    return (window.rows[1] - window.rows[0]) * stretches * parts


@kernel
def used_bytes(body: np.ndarray, offset: int, sample: np.ndarray, words: np.ndarray, window: Window) -> int:
    """Bytes of all stretches of a window, or -1 if one lies outside `body`. Arguments are those of `read_segments`."""
    stretch, total, step = np.empty(_NUM_STRETCH, np.int64), 0, checkpoints.spacing(sample)
    for row in range(window.rows[0], window.rows[1]):
        for column in range(window.columns[0] // step, (window.columns[1] - 1) // step + 1):
            if not _read_stretch(body, offset, sample, words, window, row, column, stretch):
                return -1
            total += stretch[_END] - stretch[_START]
    return total


@kernel
def _read_stretch(
    body: np.ndarray,
    offset: int,
    sample: np.ndarray,
    words: np.ndarray,
    window: Window,
    row: int,
    column: int,
    stretch: np.ndarray,
) -> bool:
    """Fills the columns of a stretch; False if it lies outside `body`.

    Kernels take arrays instead of objects: many parameters.
    """
    width = checkpoints.num_mcus(sample[checkpoints.WIDTH], sample[checkpoints.BLOCK_COLUMNS])
    step, size = checkpoints.spacing(sample), 2 + sample[checkpoints.NUM_COMPONENTS]
    stretch[_FIRST_MCU] = row * width + column * step
    stretch[_MCUS] = min(step, width - column * step)
    stretch[_BEFORE] = max(window.columns[0] - column * step, 0)
    stretch[_NEEDED] = min(window.columns[1] - column * step, stretch[_MCUS])
    at = (row * checkpoints.num_columns(sample) + column) * size
    begin = position(words, at)
    stretch[_WORDS], stretch[_START], stretch[_BITS] = at, (begin >> 3) - offset, begin & 7
    interval, after = sample[checkpoints.RESTART_INTERVAL], stretch[_FIRST_MCU] + stretch[_MCUS]
    stretch[_AT_MARKER], stretch[_NEXT_BITS] = 1, 0
    if at + size == words.size:
        stretch[_END] = sample[checkpoints.DATA_SIZE] - offset
    else:
        end = position(words, at + size)
        stretch[_END] = (end >> 3) - offset
        if interval > 0 and after % interval == 0:
            stretch[_END] -= 2
        else:
            stretch[_AT_MARKER], stretch[_NEXT_BITS] = 0, end & 7
            if end & 7 > 0:
                last = np.uint64(max(stretch[_END], 0))
                stretch[_END] += 2 if last < body.size and body[last] == 255 else 1
    return 0 <= stretch[_START] <= stretch[_END] <= body.size and (begin == 0 or stretch[_FIRST_MCU] > 0)


@kernel
def read_segments(
    body: np.ndarray,
    offset: int,
    sample: np.ndarray,
    words: np.ndarray,
    window: Window,
    data: np.ndarray,
    segments: np.ndarray,
) -> int:
    """Copies the stretches of a window to `data` without stuffed bytes, and fills `entropy`'s columns of them.

    Args:
        body: uint8, entropy-coded data of a file with the markers before and behind it; untrusted.
        offset: how many of its bytes lie before `body`.
        sample: int64 (NUM_SAMPLE_COLUMNS,).
        words: uint16, the checkpoints of this file; untrusted.
        window: from `window.cover`.
        data: uint8, `used_bytes` and `entropy.SLACK`.
        segments: int64 (`count_segments`, entropy.NUM_SEGMENT_COLUMNS), zeros, filled.

    Returns:
        The number of segments; 0 if the data is not what was indexed.
    """
    stretch, step = np.empty(_NUM_STRETCH, np.int64), checkpoints.spacing(sample)
    num, to = 0, 0
    for row in range(window.rows[0], window.rows[1]):
        for column in range(window.columns[0] // step, (window.columns[1] - 1) // step + 1):
            _read_stretch(body, offset, sample, words, window, row, column, stretch)
            before = num
            num, to = _split(body, sample, words, stretch, data, to, segments, num)
            if num == before:
                return 0
            y, x = row - window.rows[0], column * step - window.columns[0]
            for k in range(before, num):
                for component in range(3):
                    rows = sample[checkpoints.BLOCK_ROWS] if component == 0 else 1
                    columns = sample[checkpoints.BLOCK_COLUMNS] if component == 0 else 1
                    side = window.sides[min(component, 1)]
                    place = side * (y * rows * np.int64(window.strides[component]) + x * columns)
                    segments[k, entropy.PLANE_OFFSET + component] = place
    return num


@kernel
def _split(
    body: np.ndarray,
    sample: np.ndarray,
    words: np.ndarray,
    stretch: np.ndarray,
    data: np.ndarray,
    to: int,
    segments: np.ndarray,
    num: int,
) -> tuple[int, int]:
    """Makes segments of a stretch, one for each restart interval that the window needs of it.

    Kernels take arrays instead of objects: many parameters.

    Args:
        body, sample, words, data, segments: see `read_segments`.
        stretch: from `_read_stretch`.
        to: the number of bytes in `data`.
        num: the number of segments.

    Returns:
        The new number of segments, or the old one if the data is not what was indexed, and of bytes.
    """
    interval, count = sample[checkpoints.RESTART_INTERVAL], sample[checkpoints.NUM_COMPONENTS]
    blocks = sample[checkpoints.BLOCK_ROWS] * sample[checkpoints.BLOCK_COLUMNS] + count - 1
    at, first, before = stretch[_START], 0, num
    if not _begins_well(body, sample, stretch):
        return before, to
    while first < stretch[_NEEDED]:
        end = stretch[_MCUS]
        if interval > 0:
            end = min(end, interval - (stretch[_FIRST_MCU] + first) % interval + first)
        stop, size = unstuff(body, at, stretch[_END], data.ctypes.data + to)
        is_last = end == stretch[_MCUS]
        if is_last and stop != stretch[_END]:
            return before, to
        if not is_last or stretch[_AT_MARKER] == 1:
            number = stretch[_FIRST_MCU] + end
            if not _is_marker(body, stop, number // interval - 1 if interval > 0 else 0, _is_last_mcu(sample, number)):
                return before, to
        if end > stretch[_BEFORE]:
            segment = segments[num]
            segment[entropy.START], segment[entropy.SIZE] = to, size
            segment[entropy.FIRST], segment[entropy.SHOWN] = first * blocks, stretch[_BEFORE] * blocks
            segment[entropy.END] = min(end, stretch[_NEEDED]) * blocks
            number = stretch[_FIRST_MCU] + first
            if number > 0 and (interval == 0 or number % interval > 0):
                _begin(words, stretch, count, segment)
            if end > stretch[_NEEDED]:
                segment[entropy.MAX_REST] = _UNKNOWN
            elif is_last and stretch[_AT_MARKER] == 0:
                _finish(words, stretch, count, segment)
            else:
                segment[entropy.MAX_REST] = entropy.MAX_PADDING
            num, to = num + 1, to + size
        at, first = stop + 2, end
    return num, to


@kernel
def _begins_well(body: np.ndarray, sample: np.ndarray, stretch: np.ndarray) -> bool:
    """Whether a stretch that begins with a restart interval begins behind a restart marker."""
    interval, first = sample[checkpoints.RESTART_INTERVAL], stretch[_FIRST_MCU]
    if interval == 0 or first == 0 or first % interval > 0:
        return True
    return stretch[_BITS] == 0 and _is_marker(body, stretch[_START] - 2, first // interval - 1, False)


@kernel
def _is_last_mcu(sample: np.ndarray, after: int) -> bool:
    """Whether the file ends before the MCU with this number."""
    rows = checkpoints.num_mcus(sample[checkpoints.HEIGHT], sample[checkpoints.BLOCK_ROWS])
    return after == rows * checkpoints.num_mcus(sample[checkpoints.WIDTH], sample[checkpoints.BLOCK_COLUMNS])


@kernel
def _is_marker(body: np.ndarray, at: int, number: int, is_end: bool) -> bool:
    """Whether the restart marker with this number, or the end marker, is at this position."""
    if at < 0 or at + 2 > body.size:
        return False
    return body[at] == 0xFF and body[at + 1] == (0xD9 if is_end else _RST + (number & 7))


@kernel
def _begin(words: np.ndarray, stretch: np.ndarray, count: int, segment: np.ndarray) -> None:
    """The state at the checkpoint where a stretch begins."""
    segment[entropy.SKIPPED_BITS] = stretch[_BITS]
    for k in range(count):
        segment[entropy.DC_BEFORE + k] = np.int16(words[stretch[_WORDS] + 2 + k])


@kernel
def _finish(words: np.ndarray, stretch: np.ndarray, count: int, segment: np.ndarray) -> None:
    """The state that has to be reached at the checkpoint behind a stretch."""
    rest = -stretch[_NEXT_BITS] & 7
    segment[entropy.MIN_REST], segment[entropy.MAX_REST], segment[entropy.CHECKED] = rest, rest, 1
    for k in range(count):
        segment[entropy.DC_AFTER + k] = np.int16(words[stretch[_WORDS] + 4 + count + k])
