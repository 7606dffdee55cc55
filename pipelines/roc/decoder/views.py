"""The batch kernel for several crops of each image: what two of them share is decoded once.

The crops of an image that come from the same level share its headers, its tables and the segments where they overlap.
Each is then resampled from the common planes as if it had been decoded alone, so its pixels are those of
`crops.decode_samples`.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.roc.cut import cover, cut_size
from fixres.pipelines.roc.decoder.jpeg_tables import Tables, empty_tables
from fixres.pipelines.roc.decoder.planes import on_level, planes_to_crop
from fixres.pipelines.roc.decoder.segments import Work, decode_window, empty_work, lay_out_planes, read_header
from fixres.pipelines.runtime.numba_cache import kernel

_WINDOW_WORDS = 8


@kernel
def decode_views(
    data: np.ndarray,
    table: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    bicubic: np.ndarray,
    inside: bool,
    min_zoom: float,
    out: np.ndarray,
    starts: np.ndarray,
    sides: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Makes v crops of each of n samples. Kernels take arrays instead of objects: many parameters.

    Args:
        data, table, inside, min_zoom: as in `crops.decode_samples`.
        boxes: float64 (n, v, 4): y, x, h, w in pixels of the image; untrusted.
        flips, bicubic: bool (n, v), as in `crops.decode_samples`.
        out: uint8, filled: crop k of sample i, (sides[k], sides[k], 3), begins at starts[k] + i * 3 * sides[k]**2. All
            crops of a sample are undefined if its code is not OK.
        starts: int64 (v,).
        sides: int64 (v,), pixels.
        codes: int64 (n,), filled.
        counts: int64 (n, 3), filled: bytes read, pixels decoded, shift of the level that the first crop used.
    """
    num_views = boxes.shape[1]
    tables, work = empty_tables(), empty_work()
    levels = np.empty((num_views, layout.LEVEL_WORDS), np.int64)
    windows, bounds = np.empty((num_views, _WINDOW_WORDS), np.int64), np.empty((num_views, 4), np.int64)
    level_boxes = np.empty((num_views, 4))
    for i in range(table.shape[0]):
        counts[i, :] = 0
        codes[i] = layout.OK
        for k in range(num_views):
            if codes[i] == layout.OK:
                codes[i] = layout.check_bounds(table[i], data.size, boxes[i, k])
            if codes[i] == layout.OK:
                filled = levels[k], windows[k], bounds[k], level_boxes[k]
                codes[i] = _plan(data, table[i], boxes[i, k], sides[k], inside, bicubic[i, k], min_zoom, *filled)
        is_done = np.zeros(num_views, np.bool_)
        for k in range(num_views):
            if codes[i] == layout.OK and not is_done[k]:
                union = _join(levels, windows, k, is_done)
                plan = levels, windows, bounds, level_boxes
                codes[i] = _decode_joined(
                    data, table[i], union, plan, flips, bicubic, i, tables, work, out, starts, sides, counts[i]
                )
        counts[i, layout.LEVEL_SHIFT] = levels[0, layout.SHIFT] if codes[i] == layout.OK else 0


@kernel
def _plan(
    data: np.ndarray,
    sample: np.ndarray,
    box: np.ndarray,
    side: int,
    inside: bool,
    bicubic: bool,
    min_zoom: float,
    level: np.ndarray,
    window: np.ndarray,
    bounds: np.ndarray,
    level_box: np.ndarray,
) -> int:
    """Chooses the level of one crop and finds its window; fills the last four. Returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    image, field = layout.sample_fields(data, sample)
    height, width = sample[layout.IMAGE_HEIGHT], sample[layout.IMAGE_WIDTH]
    error = layout.choose_level(field, image.size, height, width, box, side, min_zoom, level)
    if error != layout.OK:
        return error
    bounds[:], level_box[:] = on_level(box, level[layout.SHIFT], height, width, side, inside, bicubic)
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    return layout.TOO_LARGE if window[6] * window[7] > layout.MAX_PIXELS else layout.OK


@kernel
def _join(levels: np.ndarray, windows: np.ndarray, first: int, is_done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collects the crops that are decoded together with crop `first`: those of its level, within the memory limit.

    Args:
        levels: int64 (v, 12).
        windows: int64 (v, 8), from `cut.cover`.
        first: the first crop that is not done.
        is_done: bool (v,), updated.

    Returns:
        The numbers of the crops, int64 (m,), and the smallest window around theirs, int64 (8,).
    """
    members, num, around = np.empty(len(levels), np.int64), 0, windows[first].copy()
    for k in range(first, len(levels)):
        if is_done[k] or levels[k, layout.SHIFT] != levels[first, layout.SHIFT]:
            continue
        larger = around.copy()
        _enclose(larger, windows[k])
        if larger[6] * larger[7] <= layout.MAX_PIXELS:
            around[:] = larger
            members[num], is_done[k] = k, True
            num += 1
    return members[:num], around


@kernel
def _enclose(around: np.ndarray, window: np.ndarray) -> None:
    """Enlarges a window, so that it holds another one of the same level."""
    y_high, x_high = around[4] + around[6], around[5] + around[7]
    for k in (0, 2, 4, 5):
        around[k] = min(around[k], window[k])
    for k in (1, 3):
        around[k] = max(around[k], window[k])
    around[6] = max(y_high, window[4] + window[6]) - around[4]
    around[7] = max(x_high, window[5] + window[7]) - around[5]


@kernel
def _decode_joined(
    data: np.ndarray,
    sample: np.ndarray,
    union: tuple[np.ndarray, np.ndarray],
    plan: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    flips: np.ndarray,
    bicubic: np.ndarray,
    slot: int,
    tables: Tables,
    work: Work,
    out: np.ndarray,
    starts: np.ndarray,
    sides: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Decodes the segments that some crops of one level need, then makes the crops; returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    (members, around), (levels, windows, bounds, level_boxes) = union, plan
    image, field = layout.sample_fields(data, sample)
    level = levels[members[0]]
    store = image if level[layout.IN_IMAGE] == 1 else field
    error = read_header(store, level, tables)
    if error != layout.OK:
        return error
    plane_starts, strides, shifted = np.empty(3, np.int64), np.empty(3, np.int32), np.empty(3, np.int64)
    planes = np.empty(lay_out_planes(level, around, plane_starts, strides), np.uint8)
    for part in disjoint_parts(windows[members]):
        _fill_pixels(level, part)
        _shift_starts(level, around, part, plane_starts, strides, shifted)
        error = decode_window(store, field, level, part, tables, work, planes, shifted, strides)
        if error != layout.OK:
            return error
        counts[layout.BYTES] += cut_size(field, level, part) - level[layout.HEADER_SIZE]
        counts[layout.PIXELS] += part[6] * part[7]
    counts[layout.BYTES] += level[layout.HEADER_SIZE]
    factors = (level[layout.MCU_HEIGHT] // 8, level[layout.MCU_WIDTH] // 8)
    for k in members:
        _shift_starts(level, around, windows[k], plane_starts, strides, shifted)
        size = 3 * sides[k] * sides[k]
        begin = starts[k] + slot * size
        crop = out[begin : begin + size].reshape(sides[k], sides[k], 3)
        planes_to_crop(
            planes,
            shifted,
            strides,
            windows[k, 4:],
            factors,
            tables.frame[2] == 1,
            level_boxes[k],
            bounds[k],
            flips[slot, k],
            bicubic[slot, k],
            crop,
        )
    return layout.OK


@kernel
def _shift_starts(
    level: np.ndarray,
    around: np.ndarray,
    window: np.ndarray,
    starts: np.ndarray,
    strides: np.ndarray,
    shifted: np.ndarray,
) -> None:
    """Fills `shifted` with where a window begins in the planes of the window `around` it, which begin at `starts`."""
    down, right = window[0] - around[0], (window[2] - around[2]) * level[layout.INTERVAL]
    for k in range(3):
        height, width = (level[layout.MCU_HEIGHT], level[layout.MCU_WIDTH]) if k == 0 else (8, 8)
        shifted[k] = starts[k] + down * height * np.int64(strides[k]) + right * width


@kernel
def _fill_pixels(level: np.ndarray, window: np.ndarray) -> None:
    """Fills in the pixels of a window whose segments are known, as `cut.cover` does."""
    window[4], window[5] = (
        window[0] * level[layout.MCU_HEIGHT],
        window[2] * level[layout.MCU_WIDTH] * level[layout.INTERVAL],
    )
    window[6] = min(window[1] * level[layout.MCU_HEIGHT], level[layout.HEIGHT]) - window[4]
    step = level[layout.MCU_WIDTH] * level[layout.INTERVAL]
    window[7] = min(window[3] * step, level[layout.WIDTH]) - window[5]


@kernel
def disjoint_parts(windows: np.ndarray) -> np.ndarray:
    """Rectangles that cover the same segments as `windows`, each segment once.

    Args:
        windows: int64 (m, 8): first row, one past the last, first column, one past the last, then four that are not
            used.

    Returns:
        int64 (p, 8), likewise.
    """
    num_windows, num = windows.shape[0], 0
    parts = np.empty((2 * num_windows * num_windows, _WINDOW_WORDS), np.int64)
    low, last = windows[:, 0].min(), windows[:, 1].max()
    while low < last:
        high, column = last, np.int64(-1)
        for k in range(num_windows):  # the next row where a window begins or ends
            for row in (windows[k, 0], windows[k, 1]):
                if low < row < high:
                    high = row
        while True:  # from left to right
            begin, end = _next_run(windows, low, column)
            if begin == end:
                break
            above = parts[num - 1]
            if num > 0 and above[1] == low and above[2] == begin and above[3] == end:
                above[1] = high
            else:
                parts[num, 0], parts[num, 1], parts[num, 2], parts[num, 3] = low, high, begin, end
                num += 1
            column = end
        low = high
    return parts[:num]


@kernel
def _next_run(windows: np.ndarray, row: int, column: int) -> tuple[int, int]:
    """The first run of columns at or right of `column` that windows cover in a row; empty if there is none."""
    begin, end = np.int64(1 << 62), np.int64(0)
    for k in range(windows.shape[0]):
        if windows[k, 0] <= row < windows[k, 1] and windows[k, 3] > column:
            begin = min(begin, max(windows[k, 2], column))
    if begin == 1 << 62:
        return 0, 0
    end, grew = begin, True
    while grew:
        grew = False
        for k in range(windows.shape[0]):
            if windows[k, 0] <= row < windows[k, 1] and windows[k, 2] <= end < windows[k, 3]:
                end, grew = windows[k, 3], True
    return begin, end
