"""What a GPU must know about each crop: where its bytes are, which part of its level they are, what to make of them.

`plan_crops` chooses the level, checks every offset, and describes a crop whose bytes are where the file has them.
`pack_crops` copies the bytes that a batch needs into one buffer and changes the plans to fit. A packed crop is its
level's headers, then the lengths of the window's segments, then the segments row by row.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.images.resampling import num_taps
from fixres.pipelines.roc.cut import copy_bytes, cover, sum_lengths
from fixres.pipelines.roc.decoder.planes import on_level
from fixres.pipelines.roc.decoder.vectors import prefetch
from fixres.pipelines.runtime.numba_cache import inlined, kernel

# Columns of a plan, int64: `Crop` in kernels/batch.cuh, in its order.
HEADER, HEADER_SIZE, DATA, DATA_END, INDEX, INDEX_COLUMNS, ROWS, COLUMNS = range(8)
FIRST_SEGMENT, LEVEL_COLUMNS, LAST_SEGMENT, INTERVAL, MCU_HEIGHT, MCU_WIDTH = range(8, 14)
LEVEL_HEIGHT, LEVEL_WIDTH, WINDOW, BOUNDS, NUM_TAPS = 14, 15, 16, 20, 24
FLIP, BICUBIC, GRAY, PLANES, TAPS, CHROMA_SIDE = range(28, 34)
NUM_PLAN = 34
NUM_SEGMENTS, SIDE = INDEX_COLUMNS, FIRST_SEGMENT  # of crops by a crop index, see `crop_index.gpu.plan`
PADDING = 8  # bytes that must be readable behind the last crop's

_CACHE_LINE = 64  # bytes
_AHEAD, _RECORD_HEAD = 4, 256  # samples whose records are looked up ahead, and bytes of each
_LENGTHS_AHEAD, _INDEX_HEAD = 2, 1024  # the same for the lengths of their segments
_ALIGNMENT = 16  # of planes in scratch


@kernel
def _describe_segments(plan: np.ndarray, level: np.ndarray, window: np.ndarray, jpeg: int, roc: int) -> None:
    """Fills where the segments of a window are; `jpeg` and `roc` are positions of the level's JPEG and the record."""
    columns = layout.num_columns(level)
    first = window[0] * columns + window[2]
    plan[HEADER], plan[HEADER_SIZE] = jpeg, level[layout.HEADER_SIZE]
    plan[DATA], plan[DATA_END] = jpeg + level[layout.HEADER_SIZE], jpeg + level[layout.SIZE]
    plan[INDEX], plan[INDEX_COLUMNS] = roc + level[layout.INDEX_START] + 2 * first, columns
    plan[ROWS], plan[COLUMNS] = window[1] - window[0], window[3] - window[2]
    plan[FIRST_SEGMENT], plan[LEVEL_COLUMNS] = first, columns
    plan[LAST_SEGMENT] = layout.num_rows(level) * columns - 1
    plan[INTERVAL] = level[layout.INTERVAL]


@kernel
def count_taps(plan: np.ndarray, box: np.ndarray, resolution: int, bicubic: bool) -> None:
    """Source samples for each output pixel, as `planes.luma_taps` and `planes.chroma_taps` have them."""
    for axis in range(2):
        factor = plan[MCU_HEIGHT + axis] // plan[CHROMA_SIDE]
        taps = num_taps(box[2 + axis], resolution, plan[BOUNDS + 2 * axis], plan[BOUNDS + 2 * axis + 1], bicubic)
        low, high = plan[WINDOW + axis], plan[WINDOW + axis] + plan[WINDOW + 2 + axis]
        samples = (high + factor - 1) // factor - low // factor
        plan[NUM_TAPS + axis] = taps
        plan[NUM_TAPS + 2 + axis] = taps if factor == 1 else min(taps // factor + 2, samples)


@inlined
def _find_segments(
    data: np.ndarray,
    sample: np.ndarray,
    box: np.ndarray,
    resolution: int,
    inside: bool,
    bicubic: bool,
    min_zoom: float,
    level: np.ndarray,
    window: np.ndarray,
    filled: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> int:
    """Plans one crop except for the lengths of its segments; returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.

    Args:
        level, window: int64 (12,) and (8,), working memory.
        filled: its rows of plans, level boxes and counts.
    """
    plan, level_box, counts = filled
    image, field = layout.sample_fields(data, sample)
    height, width = sample[layout.IMAGE_HEIGHT], sample[layout.IMAGE_WIDTH]
    error = layout.choose_level(field, image.size, height, width, box, resolution, min_zoom, level)
    if error != layout.OK:
        return error
    bounds, scaled = on_level(box, level[layout.SHIFT], height, width, resolution, inside, bicubic)
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    if window[6] * window[7] > layout.MAX_PIXELS:
        return layout.TOO_LARGE
    start = sample[layout.IMAGE_START] if level[layout.IN_IMAGE] == 1 else sample[layout.ROC_START]
    _describe_segments(plan, level, window, start + level[layout.START], sample[layout.ROC_START])
    lengths = plan[INDEX] - 2 * plan[FIRST_SEGMENT]
    for line in range(
        lengths, min(lengths + _INDEX_HEAD, plan[INDEX] + 2 * plan[ROWS] * plan[INDEX_COLUMNS]), _CACHE_LINE
    ):
        prefetch(data, line)
    plan[MCU_HEIGHT], plan[MCU_WIDTH], plan[CHROMA_SIDE] = level[layout.MCU_HEIGHT], level[layout.MCU_WIDTH], 8
    plan[LEVEL_HEIGHT], plan[LEVEL_WIDTH] = level[layout.HEIGHT], level[layout.WIDTH]
    for k in range(4):
        plan[WINDOW + k], plan[BOUNDS + k], level_box[k] = window[4 + k], bounds[k], scaled[k]
    count_taps(plan, scaled, resolution, bicubic)
    counts[layout.PIXELS], counts[layout.LEVEL_SHIFT] = window[6] * window[7], level[layout.SHIFT]
    return layout.OK


@inlined
def _add_lengths(data: np.ndarray, plan: np.ndarray, counts: np.ndarray) -> int:
    """Fills where the first segment of a crop is, and the crop's bytes; returns OK or an error code."""
    index, inside, outside = plan[INDEX], 0, 0
    plan[DATA] += sum_lengths(data, index - 2 * plan[FIRST_SEGMENT], 0, plan[FIRST_SEGMENT])
    for row in range(plan[ROWS]):
        inside += sum_lengths(data, index, 0, plan[COLUMNS])
        if row < plan[ROWS] - 1:
            outside += sum_lengths(data, index, plan[COLUMNS], plan[INDEX_COLUMNS])
        index += 2 * plan[INDEX_COLUMNS]
    counts[layout.BYTES] = plan[HEADER_SIZE] + inside
    return layout.OK if plan[DATA] + inside + outside <= plan[DATA_END] else layout.BAD_INDEX


@kernel
def plan_crops(
    data: np.ndarray,
    table: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    bicubic: np.ndarray,
    resolution: int,
    inside: bool,
    min_zoom: float,
    plans: np.ndarray,
    level_boxes: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Plans the crops of n samples. Kernels take arrays instead of objects: many parameters.

    Args:
        data, table, boxes, flips, bicubic, inside, min_zoom, codes, counts: as in `crops.decode_samples`. A code that
            is not OK is final; the decoder may find other errors.
        resolution: output side in pixels.
        plans: int64 (n, 34), filled; positions are those in `data`. Zeros if the code is not OK.
        level_boxes: float64 (n, 4), filled: the boxes in pixels of their levels.
    """
    num = table.shape[0]
    level, window = np.empty(layout.LEVEL_WORDS, np.int64), np.empty(8, np.int64)
    for found in range(num + _LENGTHS_AHEAD):
        if found < num:
            ahead = table[min(found + _AHEAD, num - 1), layout.ROC_START]
            for line in range(ahead, ahead + _RECORD_HEAD, _CACHE_LINE):
                prefetch(data, line)
            plans[found, :], level_boxes[found, :], counts[found, :] = 0, 1.0, 0
            codes[found] = layout.check_bounds(table[found], data.size, boxes[found])
            if codes[found] == layout.OK:
                filled = plans[found], level_boxes[found], counts[found]
                wanted = boxes[found], resolution, inside, bicubic[found], min_zoom
                codes[found] = _find_segments(data, table[found], *wanted, level, window, filled)
        i = found - _LENGTHS_AHEAD
        if i >= 0 and codes[i] == layout.OK:
            codes[i] = _add_lengths(data, plans[i], counts[i])
            plans[i, FLIP], plans[i, BICUBIC] = flips[i], bicubic[i]
        if i >= 0 and codes[i] != layout.OK:
            plans[i, :], counts[i, :] = 0, 0


@kernel
def lay_out_scratch(plans: np.ndarray, resolution: int) -> tuple[int, int]:
    """Fills where the planes and taps of each crop are in the GPU's scratch memory.

    Returns:
        The memory's size in bytes, and the segments of the crop that has most.
    """
    at, most = 0, 0
    for i in range(plans.shape[0]):
        plan = plans[i]
        most = max(most, plan[ROWS] * plan[COLUMNS])
        mcus = plan[ROWS] * plan[COLUMNS] * plan[INTERVAL]
        plan[PLANES] = at
        at = _aligned(at + mcus * (plan[MCU_HEIGHT] * plan[MCU_WIDTH] + 2 * plan[CHROMA_SIDE] ** 2))
        plan[TAPS] = at
        for axis in range(4):
            at += 4 * resolution + (2 * resolution * plan[NUM_TAPS + axis] + 3) // 4 * 4
        at = _aligned(at)
    return at, most


@kernel
def _aligned(at: int) -> int:
    return (at + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT


@kernel
def packed_starts(plans: np.ndarray, counts: np.ndarray, starts: np.ndarray) -> int:
    """Fills where each crop begins in a packed buffer, int64 (n,); returns the buffer's size in bytes, with padding.

    Other arguments are those of `plan_crops`.
    """
    at = 0
    for i in range(plans.shape[0]):
        starts[i] = at
        at += counts[i, layout.BYTES] + 2 * plans[i, ROWS] * plans[i, COLUMNS]
    return at + PADDING


@inlined
def _find_rows(data: np.ndarray, plan: np.ndarray, runs: np.ndarray) -> None:
    """Fills position and size in bytes of each row of segments, int64 (rows, 2), and starts loading them."""
    source = plan[DATA]
    prefetch(data, plan[HEADER])
    for row in range(plan[ROWS]):
        lengths = plan[INDEX] + 2 * row * plan[INDEX_COLUMNS]
        size = sum_lengths(data, lengths, 0, plan[COLUMNS])
        runs[row, 0], runs[row, 1] = source, size
        prefetch(data, source)
        prefetch(data, source + _CACHE_LINE)
        if row < plan[ROWS] - 1:
            source += size + sum_lengths(data, lengths, plan[COLUMNS], plan[INDEX_COLUMNS])


@inlined
def _pack_crop(data: np.ndarray, plan: np.ndarray, runs: np.ndarray, at: int, out: np.ndarray) -> None:
    """Copies one crop to `at` in `out`; see `pack_crops`."""
    copy_bytes(data, plan[HEADER], out, at, plan[HEADER_SIZE])
    index = at + plan[HEADER_SIZE]
    start = to = index + 2 * plan[ROWS] * plan[COLUMNS]
    for row in range(plan[ROWS]):
        lengths = plan[INDEX] + 2 * row * plan[INDEX_COLUMNS]
        copy_bytes(data, lengths, out, index + 2 * row * plan[COLUMNS], 2 * plan[COLUMNS])
        copy_bytes(data, runs[row, 0], out, to, runs[row, 1])
        to += runs[row, 1]
    plan[HEADER], plan[DATA], plan[DATA_END] = at, start, to
    plan[INDEX], plan[INDEX_COLUMNS] = index, plan[COLUMNS]


@kernel
def pack_crops(data: np.ndarray, plans: np.ndarray, starts: np.ndarray, out: np.ndarray) -> None:
    """Copies the bytes of n crops and changes their plans to the copies' positions.

    The rows of a crop lie in different pages of memory. So the next crop's are looked up before a crop is copied.

    Args:
        data, plans: as in `plan_crops`. Crops that it refused are skipped.
        starts: int64 (n,), from `packed_starts`.
        out: uint8, filled.
    """
    num, most = plans.shape[0], 0
    for i in range(num):
        most = max(most, plans[i, ROWS])
    runs = np.empty((2, most, 2), np.int64)
    _find_rows(data, plans[0], runs[0])
    for i in range(num):
        if i + 1 < num:
            _find_rows(data, plans[i + 1], runs[(i + 1) & 1])
        if plans[i, ROWS] > 0:
            _pack_crop(data, plans[i], runs[i & 1], starts[i], out)
