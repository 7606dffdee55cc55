"""Decodes the segments that cover a crop into YCbCr planes, without copying them first."""

from __future__ import annotations

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.roc.cut import segment_length, sum_lengths
from fixres.pipelines.roc.decoder.entropy import AC_TABLE, COMPONENT, DC_TABLE, NUM_BLOCK, STEPS, STRIDE, decode_segment
from fixres.pipelines.roc.decoder.jpeg_tables import LOOKUP_SIZE, Tables, read_tables
from fixres.pipelines.runtime.numba_cache import kernel

_SLACK = 64  # bytes behind the last plane that reads of whole groups may touch


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
    planes: np.ndarray,
    starts: np.ndarray,
    strides: np.ndarray,
) -> int:
    """Decodes the segments of a window. Kernels take arrays instead of objects: many parameters.

    Args:
        store, field, level, window: as in `cut.write_cut`.
        tables: from `read_header`.
        planes, starts, strides: see `lay_out_planes`.

    Returns:
        OK or an error code.
    """
    blocks, first_offsets = _blocks_of_mcu(tables, starts, strides)
    steps_right, steps_down = np.empty(first_offsets.size, np.int64), np.empty(first_offsets.size, np.int64)
    for k in range(first_offsets.size):
        luma = blocks[k, COMPONENT] == 0
        steps_right[k] = level[layout.MCU_WIDTH] if luma else 8
        steps_down[k] = blocks[k, STRIDE] * (level[layout.MCU_HEIGHT] if luma else 8)
    flat_blocks, num_mcus = blocks.reshape(blocks.size), level[layout.INTERVAL]
    offsets, block = np.empty(num_mcus * first_offsets.size, np.int64), np.zeros(64, np.int32)
    columns, index = layout.num_columns(level), level[layout.INDEX_START]
    last_segment = layout.num_rows(level) * columns - 1
    at, end, done = level[layout.START] + level[layout.HEADER_SIZE], level[layout.START] + level[layout.SIZE], 0
    for row in range(window[0], window[1]):
        first, last = row * columns + window[2], row * columns + window[3]
        at += sum_lengths(field, index, done, first)
        for segment in range(first, last):
            length = segment_length(field, index, segment)
            if length < 2 or at + length > end:
                return layout.BAD_INDEX
            marker, expected = at + length - 2, 0xD9 if segment == last_segment else 0xD0 + (segment & 7)
            if store[marker] != 0xFF or store[marker + 1] != expected:
                return layout.BAD_INDEX
            for k in range(offsets.size):
                mcu, which = (segment - first) * num_mcus + k // first_offsets.size, k % first_offsets.size
                offsets[k] = first_offsets[which] + (row - window[0]) * steps_down[which] + mcu * steps_right[which]
            lookup, codes, steps = tables.lookup, tables.codes, tables.steps
            if not decode_segment(store, at, marker, lookup, codes, steps, flat_blocks, offsets, block, planes):
                return layout.NOT_DECODABLE
            at += length
        done = last
    return layout.OK


@kernel
def _blocks_of_mcu(tables: Tables, starts: np.ndarray, strides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each block of an MCU its columns (see `entropy`), int64 (B, 5), and its offset in the planes for MCU 0."""
    count, rows, columns = tables.frame[2], tables.frame[3], tables.frame[4]
    num_luma = rows * columns
    blocks = np.empty((num_luma + count - 1, NUM_BLOCK), np.int64)
    offsets = np.empty(blocks.shape[0], np.int64)
    for k in range(blocks.shape[0]):
        component = max(k - num_luma + 1, 0)
        quantization, dc, ac = tables.components[component]
        blocks[k, COMPONENT], blocks[k, STRIDE], blocks[k, STEPS] = component, strides[component], 64 * quantization
        blocks[k, DC_TABLE], blocks[k, AC_TABLE] = LOOKUP_SIZE * dc, LOOKUP_SIZE * ac
        offsets[k] = starts[component]
        if component == 0:
            offsets[k] += 8 * (k // columns * strides[0] + k % columns)
    return blocks, offsets
