"""Cuts a rectangle out of a level as a small standard JPEG by copying bytes.

The cut begins with the level's headers, with height and width patched. Each of its rows is one run of segments of the
stored image, copied unchanged. Only the restart markers between segments are rewritten, because their numbers count
from the first segment of the cut.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.runtime.numba_cache import kernel
from fixres.pipelines.spec import InputError


@kernel
def cover(level: np.ndarray, y_low: int, y_high: int, x_low: int, x_high: int, window: np.ndarray) -> None:
    """Finds the segments that hold a rectangle of pixels and the chroma samples around it.

    A decoder upsamples chroma from each sample and its nearest neighbor. So an even first (odd last) pixel of a
    subsampled axis needs the neighbor outside the rectangle. If that lies in another MCU, that MCU is included. The
    window also begins before the last 4 columns of the level, because a decoder would repeat chroma in a cut of at most
    4 columns.

    Args:
        level: int64 (12,).
        y_low, y_high, x_low, x_high: the pixels [y_low, y_high) x [x_low, x_high) of the level, inside it, not empty.
        window: int64 (8,), filled: first row of segments, one past the last, first column, one past the last, then the
            pixels that they hold: y, x, height, width.
    """
    mcu_height, step = level[layout.MCU_HEIGHT], level[layout.MCU_WIDTH] * level[layout.INTERVAL]
    if mcu_height == 16:
        y_low, y_high = max(y_low - 1, 0), min(y_high + 1, level[layout.HEIGHT])
    if level[layout.MCU_WIDTH] == 16:
        x_low = max(min(x_low - 1, level[layout.WIDTH] - layout.MAX_PLAIN_WIDTH - 1), 0)
        x_high = min(x_high + 1, level[layout.WIDTH])
    window[0], window[1] = y_low // mcu_height, (y_high - 1) // mcu_height + 1
    window[2], window[3] = x_low // step, (x_high - 1) // step + 1
    window[4], window[5] = window[0] * mcu_height, window[2] * step
    window[6] = min(window[1] * mcu_height, level[layout.HEIGHT]) - window[4]
    window[7] = min(window[3] * step, level[layout.WIDTH]) - window[5]


@kernel
def sum_lengths(field: np.ndarray, index: int, begin: int, end: int) -> int:
    """Total bytes of the segments [begin, end)."""
    # Over a slice that begins at 0 this becomes vector code, 15 times as fast; sums of positions do not.
    lengths, total = field[index + 2 * begin : index + 2 * end], np.uint32(0)
    for k in range(lengths.size // 2):
        total += np.uint32(lengths[2 * k]) + (np.uint32(lengths[2 * k + 1]) << np.uint32(8))
    return np.int64(total)


@kernel
def segment_length(field: np.ndarray, index: int, segment: int) -> int:
    """Bytes of a segment, its marker included."""
    at = index + 2 * segment
    return np.int64(field[at]) + (np.int64(field[at + 1]) << 8)


@kernel
def cut_size(field: np.ndarray, level: np.ndarray, window: np.ndarray) -> int:
    """Bytes of the cut of `window` (see `cover`), its end marker included."""
    columns, total = layout.num_columns(level), level[layout.HEADER_SIZE]
    for row in range(window[0], window[1]):
        total += sum_lengths(field, level[layout.INDEX_START], row * columns + window[2], row * columns + window[3])
    return total


@kernel
def copy_bytes(source: np.ndarray, start: int, target: np.ndarray, at: int, length: int) -> None:
    # Over slices that begin at 0 this becomes a memcpy; numba takes seconds to compile the assignment of a slice.
    part, into = source[start : start + length], target[at : at + length]
    for k in range(part.size):
        into[k] = part[k]


@kernel
def num_markers(source: np.ndarray, start: int, length: int) -> int:
    """Number of markers in a run of entropy-coded data: bytes 255 that no stuffed 0 follows."""
    each, after = source[start : start + length - 1], source[start + 1 : start + length]
    total = np.uint32(0)
    for k in range(each.size):
        total += np.uint32((each[k] == 0xFF) & (after[k] != 0))
    return np.int64(total)


@kernel
def write_cut(store: np.ndarray, field: np.ndarray, level: np.ndarray, window: np.ndarray, out: np.ndarray) -> int:
    """Writes a window of a level as a JPEG. Markers that do not match the index are an error.

    Args:
        store: uint8, the field that holds the level's JPEG.
        field: uint8, the `roc` field.
        level: int64 (12,), checked by `read_level` against these fields.
        window: int64 (8,), from `cover`.
        out: uint8, at least `cut_size` long.

    Returns:
        OK or an error code.
    """
    columns, index = layout.num_columns(level), level[layout.INDEX_START]
    last_segment = layout.num_rows(level) * columns - 1
    start, header_size, size = level[layout.START], level[layout.HEADER_SIZE], level[layout.SIZE]
    copy_bytes(store, start, out, 0, header_size)
    at = level[layout.SOF_HEIGHT]
    out[at], out[at + 1] = window[6] >> 8, window[6] & 255
    out[at + 2], out[at + 3] = window[7] >> 8, window[7] & 255
    source, target, number, done = header_size, header_size, 0, 0
    for row in range(window[0], window[1]):
        first, last = row * columns + window[2], row * columns + window[3]
        source += sum_lengths(field, index, done, first)
        length = sum_lengths(field, index, first, last)
        if source + length > size or target + length > out.size:
            return layout.BAD_INDEX
        if num_markers(store, start + source, length) != last - first:
            return layout.BAD_INDEX
        copy_bytes(store, start + source, out, target, length)
        for segment in range(first, last):
            step = segment_length(field, index, segment)
            if step < 2:
                return layout.BAD_INDEX
            target += step
            expected = 0xD9 if segment == last_segment else 0xD0 + (segment & 7)
            if out[target - 2] != 0xFF or out[target - 1] != expected:
                return layout.BAD_INDEX
            out[target - 2], out[target - 1] = 0xFF, 0xD0 + (number & 7)
            number += 1
        source += length
        done = last
    out[target - 1] = 0xD9
    return layout.OK


def cut_crop(
    image_field: bytes,
    roc_field: bytes,
    size: tuple[int, int],
    box: tuple[float, float, float, float],
    resolution: int,
    min_zoom: float = float("inf"),
) -> tuple[bytes, tuple[int, int], int]:
    """Cuts the crop of one sample as a JPEG file, for tests, tools and other decoders.

    Args:
        image_field: level 0.
        roc_field: the record.
        size: height and width of the image.
        box: y, x, h, w in pixels of the image.
        resolution: output side in pixels. Together with `min_zoom` it chooses the level.
        min_zoom: see `layout.choose_level`; the default always takes level 0.

    Returns:
        The JPEG, the (y, x) of its first pixel on the level, and the level's shift.

    Raises:
        InputError: the record is damaged.
    """
    image, field = np.frombuffer(image_field, np.uint8), np.frombuffer(roc_field, np.uint8)
    level, window = np.zeros(layout.LEVEL_WORDS, np.int64), np.zeros(8, np.int64)
    error = layout.choose_level(field, image.size, *size, np.array(box, np.float64), resolution, min_zoom, level)
    if error == layout.OK:
        y, x, h, w = (value / 2 ** level[layout.SHIFT] for value in box)
        y_high, x_high = min(int(np.ceil(y + h)), level[layout.HEIGHT]), min(int(np.ceil(x + w)), level[layout.WIDTH])
        cover(level, int(y), y_high, int(x), x_high, window)
        out = np.empty(cut_size(field, level, window), np.uint8)
        error = write_cut(image if level[layout.IN_IMAGE] else field, field, level, window, out)
    if error != layout.OK:
        raise InputError(layout.ERRORS[error])
    return out.tobytes(), (int(window[4]), int(window[5])), int(level[layout.SHIFT])
