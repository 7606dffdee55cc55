"""Which segments the crops of an image share, so that each segment is decoded once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.runtime.numba_cache import kernel

_WINDOW_WORDS = 8


class Plans(NamedTuple):
    """What v crops of an image need.

    Attributes:
        levels: int64 (v, 12), from `layout.choose_level`.
        windows: int64 (v, 8), from `cut.cover`.
        bounds, boxes: int64 (v, 4) and float64 (v, 4), from `planes.on_level`.
    """

    levels: np.ndarray
    windows: np.ndarray
    bounds: np.ndarray
    boxes: np.ndarray


@kernel
def empty_plans(num: int) -> Plans:
    """Uninitialized plans of `num` crops."""
    return Plans(
        np.empty((num, layout.LEVEL_WORDS), np.int64),
        np.empty((num, _WINDOW_WORDS), np.int64),
        np.empty((num, 4), np.int64),
        np.empty((num, 4)),
    )


@kernel
def join(plans: Plans, first: int, is_done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Collects the crops that are decoded together with crop `first`: those of its level, within the memory limit.

    Args:
        plans: of all crops.
        first: the first crop that is not done.
        is_done: bool (v,), updated.

    Returns:
        The numbers of the crops, int64 (m,), and the smallest window around theirs, int64 (8,).
    """
    levels, windows, num = plans.levels, plans.windows, 0
    members, around = np.empty(len(levels), np.int64), windows[first]
    for k in range(first, len(levels)):
        if is_done[k] or levels[k, layout.SHIFT] != levels[first, layout.SHIFT]:
            continue
        larger = _enclosing(around, windows[k])
        if larger[6] * larger[7] <= layout.MAX_PIXELS:
            around, members[num], is_done[k] = larger, k, True
            num += 1
    return members[:num], around


@kernel
def _enclosing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The smallest window that holds two windows of a level."""
    around = np.empty(_WINDOW_WORDS, np.int64)
    for k in (0, 2, 4, 5):
        around[k] = min(first[k], second[k])
    for k in (1, 3):
        around[k] = max(first[k], second[k])
    for k in (4, 5):
        around[k + 2] = max(first[k] + first[k + 2], second[k] + second[k + 2]) - around[k]
    return around


@kernel
def shift_starts(
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
def num_pixels(level: np.ndarray, window: np.ndarray) -> int:
    """Pixels that the segments of a window hold."""
    down, right = level[layout.MCU_HEIGHT], level[layout.MCU_WIDTH] * level[layout.INTERVAL]
    height = min(window[1] * down, level[layout.HEIGHT]) - window[0] * down
    return height * (min(window[3] * right, level[layout.WIDTH]) - window[2] * right)


@kernel
def disjoint_parts(windows: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Rectangles that cover the same segments as some windows, each segment once.

    Args:
        windows: int64 (v, 8): first row, one past the last, first column, one past the last, then four that are not
            used.
        members: int64 (m,), numbers of the windows.

    Returns:
        int64 (p, 4): the first four columns.
    """
    parts, num = np.empty((2 * members.size * members.size, 4), np.int64), 0
    low, last = windows[members[0], 0], windows[members[0], 1]
    for k in members:
        low, last = min(low, windows[k, 0]), max(last, windows[k, 1])
    while low < last:
        high, column = last, np.int64(-1)
        for k in members:  # the next row where a window begins or ends
            for row in (windows[k, 0], windows[k, 1]):
                if low < row < high:
                    high = row
        while True:  # from left to right
            begin, end = _next_run(windows, members, low, column)
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
def _next_run(windows: np.ndarray, members: np.ndarray, row: int, column: int) -> tuple[int, int]:
    """The first run of columns at or right of `column` that windows cover in a row; empty if there is none."""
    begin, end = np.int64(1 << 62), np.int64(0)
    for k in members:
        if windows[k, 0] <= row < windows[k, 1] and windows[k, 3] > column:
            begin = min(begin, max(windows[k, 2], column))
    if begin == 1 << 62:
        return 0, 0
    end, grew = begin, True
    while grew:
        grew = False
        for k in members:
            if windows[k, 0] <= row < windows[k, 1] and windows[k, 2] <= end < windows[k, 3]:
                end, grew = windows[k, 3], True
    return begin, end
