"""The batch kernel for RoC files: from stored bytes to finished crops, without the GIL.

A call processes a run of samples on one thread. For each sample it chooses the level, decodes the segments that the
crop needs into planes, resamples them, converts colors and writes into the batch. Files are untrusted: a damaged sample
gets an error code (`layout.ERRORS`) instead of an exception.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.roc.cut import cover, cut_size
from fixres.pipelines.roc.decoder.jpeg_tables import Tables, empty_tables
from fixres.pipelines.roc.decoder.planes import on_level, planes_to_crop
from fixres.pipelines.roc.decoder.segments import Work, decode_window, empty_work, lay_out_planes, read_header
from fixres.pipelines.runtime.numba_cache import kernel


@kernel
def decode_samples(
    data: np.ndarray,
    table: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    bicubic: np.ndarray,
    inside: bool,
    min_zoom: float,
    out: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Makes the crops of n samples. Kernels take arrays instead of objects: many parameters.

    Args:
        data: uint8, the whole file.
        table: int64 (n, 6), rows of `sample_table.locate_samples`; untrusted.
        boxes: float64 (n, 4): y, x, h, w in pixels of the image; untrusted.
        flips: bool (n,).
        bicubic: bool (n,): resize with the cubic filter, else with the triangle.
        inside: use no pixel outside the box (training), or let the filter reach beyond it (evaluation).
        min_zoom: see `layout.choose_level`.
        out: uint8 (n, r, r, 3), contiguous, filled. Undefined for samples whose code is not OK.
        codes: int64 (n,), filled.
        counts: int64 (n, 3), filled: bytes read, pixels decoded, shift of the level used.
    """
    tables, work = empty_tables(), empty_work()
    for i in range(table.shape[0]):
        counts[i, :] = 0
        codes[i] = layout.check_bounds(table[i], data.size, boxes[i])
        if codes[i] == layout.OK:
            codes[i] = _decode_crop(
                data, table[i], boxes[i], flips[i], bicubic[i], inside, min_zoom, tables, work, out[i], counts[i]
            )


@kernel
def _decode_crop(
    data: np.ndarray,
    sample: np.ndarray,
    box: np.ndarray,
    flip: bool,
    bicubic: bool,
    inside: bool,
    min_zoom: float,
    tables: Tables,
    work: Work,
    out: np.ndarray,
    counts: np.ndarray,
) -> int:
    """Decodes the segments that one crop needs; returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    image, field = layout.sample_fields(data, sample)
    height, width, resolution = sample[layout.IMAGE_HEIGHT], sample[layout.IMAGE_WIDTH], out.shape[0]
    level, window = np.empty(layout.LEVEL_WORDS, np.int64), np.empty(8, np.int64)
    error = layout.choose_level(field, image.size, height, width, box, resolution, min_zoom, level)
    if error != layout.OK:
        return error
    store, shift = image if level[layout.IN_IMAGE] == 1 else field, level[layout.SHIFT]
    error = read_header(store, level, tables)
    if error != layout.OK:
        return error
    bounds, level_box = on_level(box, shift, height, width, resolution, inside, bicubic)
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    if window[6] * window[7] > layout.MAX_PIXELS:
        return layout.TOO_LARGE
    starts, strides = np.empty(3, np.int64), np.empty(3, np.int32)
    planes = np.empty(lay_out_planes(level, window, starts, strides), np.uint8)
    error = decode_window(store, field, level, window, tables, work, planes, starts, strides)
    if error != layout.OK:
        return error
    counts[layout.BYTES], counts[layout.PIXELS] = cut_size(field, level, window), window[6] * window[7]
    counts[layout.LEVEL_SHIFT] = shift
    factors = (level[layout.MCU_HEIGHT] // 8, level[layout.MCU_WIDTH] // 8)
    how = level_box, bounds, flip, bicubic
    planes_to_crop(planes, starts, strides, window[4:], factors, tables.frame[2] == 1, *how, out)
    return layout.OK
