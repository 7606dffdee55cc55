"""Decodes the segments that cover a crop into YCbCr planes, without copying them first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

import fixres.pipelines.roc.decoder.entropy as entropy
import fixres.pipelines.roc.layout as layout
from fixres.pipelines.roc.cut import segment_length, sum_lengths
from fixres.pipelines.roc.decoder.jpeg_tables import CODES_SIZE, LOOKUP_SIZE, Tables, read_tables
from fixres.pipelines.roc.decoder.unstuffing import unstuff
from fixres.pipelines.runtime.numba_cache import kernel, shared_kernel

_SLACK = 64  # bytes behind the last plane that reads of whole groups may touch
_MAX_BLOCKS = 64  # of a segment: 8 MCUs of 6 blocks in a RoC record, 16 MCUs of 4 blocks between two checkpoints


class Work(NamedTuple):
    """Work space for `entropy.decode_segments`; see there."""

    blocks: np.ndarray
    lanes: np.ndarray
    coefficients: np.ndarray


@kernel
def empty_work() -> Work:
    """Work space for `decode_window`."""
    return Work(
        np.empty((_MAX_BLOCKS, entropy.NUM_COLUMNS), np.int64),
        np.empty((2, entropy.NUM_LANE_COLUMNS), np.int64),
        np.empty(entropy.NUM_COEFFICIENTS, np.int16),
    )


@kernel
def read_header(store: np.ndarray, level: np.ndarray, tables: Tables) -> int:
    """Reads the headers of a level's JPEG into `tables` and compares them with the record; returns OK or an error code.

    Arguments are those of `decode_window`.
    """
    if not read_tables(store[level[layout.START] : level[layout.START] + level[layout.HEADER_SIZE]], tables):
        return layout.NOT_DECODABLE
    frame = tables.frame
    if frame[0] != level[layout.HEIGHT] or frame[1] != level[layout.WIDTH]:
        return layout.WRONG_SIZE
    if 8 * frame[3] != level[layout.MCU_HEIGHT] or 8 * frame[4] != level[layout.MCU_WIDTH]:
        return layout.WRONG_SIZE
    return layout.OK


@kernel
def lay_out_planes(level: np.ndarray, window: np.ndarray, starts: np.ndarray, strides: np.ndarray) -> int:
    """Lays out three planes of whole MCUs in one buffer.

    Args:
        level, window: as in `cut.write_cut`.
        starts: int64 (3,), filled: where each plane begins.
        strides: int32 (3,), filled: bytes from row to row.

    Returns:
        Bytes of the buffer.
    """
    rows, columns = window[1] - window[0], (window[3] - window[2]) * level[layout.INTERVAL]
    strides[0], strides[1], strides[2] = columns * level[layout.MCU_WIDTH], columns * 8, columns * 8
    starts[0] = 0
    starts[1] = np.int64(strides[0]) * rows * level[layout.MCU_HEIGHT]
    starts[2] = starts[1] + np.int64(strides[1]) * rows * 8
    return 2 * starts[2] - starts[1] + _SLACK


@kernel
def decode_window(
    store: np.ndarray,
    field: np.ndarray,
    level: np.ndarray,
    window: np.ndarray,
    tables: Tables,
    work: Work,
    planes: np.ndarray,
    starts: np.ndarray,
    strides: np.ndarray,
) -> int:
    """Decodes the segments of a window. Kernels take arrays instead of objects: many parameters.

    Args:
        store, field, level, window: as in `cut.write_cut`.
        tables: from `read_header`.
        work: from `empty_work`.
        planes, starts, strides: see `lay_out_planes`.

    Returns:
        OK or an error code.
    """
    columns, index = layout.num_columns(level), level[layout.INDEX_START]
    num_bytes = 0
    for row in range(window[0], window[1]):
        num_bytes += sum_lengths(field, index, row * columns + window[2], row * columns + window[3])
    if num_bytes > level[layout.SIZE]:
        return layout.BAD_INDEX
    data = np.empty(num_bytes + entropy.SLACK, np.uint8)
    segments = np.zeros(((window[1] - window[0]) * (window[3] - window[2]), entropy.NUM_SEGMENT_COLUMNS), np.int64)
    error = _read_segments(store, field, level, window, strides, data, segments)
    if error != layout.OK:
        return error
    sides, interval = (8, 8), level[layout.INTERVAL]
    num_blocks = lay_out_blocks(tables, interval, sides, planes.ctypes.data, starts, strides, work.blocks)
    segments[:, entropy.MAX_REST], segments[:, entropy.END] = entropy.MAX_PADDING, num_blocks
    work.coefficients[:] = 0
    valid = entropy.decode_segments(data, segments, work.blocks[:num_blocks], work.lanes, work.coefficients.ctypes.data)
    return layout.OK if valid else layout.NOT_DECODABLE


@kernel
def _read_segments(
    store: np.ndarray,
    field: np.ndarray,
    level: np.ndarray,
    window: np.ndarray,
    strides: np.ndarray,
    data: np.ndarray,
    segments: np.ndarray,
) -> int:
    """Copies the segments of a window to `data` without stuffed bytes, and fills `entropy`'s columns of them."""
    columns, index = layout.num_columns(level), level[layout.INDEX_START]
    down, right = level[layout.MCU_HEIGHT] * np.int64(strides[0]), level[layout.MCU_WIDTH] * level[layout.INTERVAL]
    chroma_down, chroma_right = 8 * np.int64(strides[1]), 8 * level[layout.INTERVAL]
    last_segment, number, to = layout.num_rows(level) * columns - 1, 0, 0
    at, end, done = level[layout.START] + level[layout.HEADER_SIZE], level[layout.START] + level[layout.SIZE], 0
    for row in range(window[0], window[1]):
        first, last = row * columns + window[2], row * columns + window[3]
        at += sum_lengths(field, index, done, first)
        for segment in range(first, last):
            length = segment_length(field, index, segment)
            if length < 2 or at + length > end:
                return layout.BAD_INDEX
            marker, expected = np.uint64(at + length - 2), 0xD9 if segment == last_segment else 0xD0 + (segment & 7)
            if store[marker] != 0xFF or store[marker + np.uint64(1)] != expected:
                return layout.BAD_INDEX
            stop, size = unstuff(store, at, at + length - 2, data.ctypes.data + to)
            if stop != at + length - 2:
                return layout.NOT_DECODABLE
            y, x, part = row - window[0], segment - first, segments[number]
            part[entropy.START], part[entropy.SIZE] = to, size
            part[entropy.PLANE_OFFSET] = y * down + x * right
            part[entropy.PLANE_OFFSET + 1] = part[entropy.PLANE_OFFSET + 2] = y * chroma_down + x * chroma_right
            at, to, number = at + length, to + size, number + 1
        done = last
    return layout.OK


@shared_kernel
def lay_out_blocks(
    tables: Tables,
    interval: int,
    sides: tuple[int, int],
    planes: int,
    starts: np.ndarray,
    strides: np.ndarray,
    blocks: np.ndarray,
) -> int:
    """Fills the columns of each block of a segment, see `entropy`.

    Args:
        tables: of the JPEG.
        interval: MCUs of a segment.
        sides: of the inverse transforms of luma and of chroma.
        planes: address of the planes.
        starts, strides: see `lay_out_planes`.
        blocks: int64, filled.

    Returns:
        The number of blocks.
    """
    count, rows, columns = tables.frame[2], tables.frame[3], tables.frame[4]
    num_luma = rows * columns
    num_blocks = num_luma + count - 1
    lookup, codes, steps = tables.lookup.ctypes.data, tables.codes.ctypes.data, tables.steps.ctypes.data
    for k in range(interval * num_blocks):
        mcu, which = k // num_blocks, k % num_blocks
        component = max(which - num_luma + 1, 0)
        quantization, dc, ac = tables.components[component]
        offset = mcu
        if component == 0:
            offset = which // columns * np.int64(strides[0]) + which % columns + mcu * columns
        blocks[k, entropy.DC_LOOKUP], blocks[k, entropy.DC_CODES] = (
            lookup + 4 * LOOKUP_SIZE * dc,
            codes + 4 * CODES_SIZE * dc,
        )
        blocks[k, entropy.AC_LOOKUP], blocks[k, entropy.AC_CODES] = (
            lookup + 4 * LOOKUP_SIZE * ac,
            codes + 4 * CODES_SIZE * ac,
        )
        side = sides[min(component, 1)]
        blocks[k, entropy.STEPS], blocks[k, entropy.STRIDE] = steps + 4 * 64 * quantization, strides[component]
        blocks[k, entropy.COMPONENT], blocks[k, entropy.SIDE] = component, side
        blocks[k, entropy.TARGET] = planes + starts[component] + side * offset
    return interval * num_blocks
