"""The batch kernel for RoC files: from stored bytes to finished crops, without the GIL.

A call processes a run of samples on one thread. It chooses the level of each crop. The crops of a sample that come from
the same level share its headers, its tables and the segments where they overlap. Each is then resampled from the common
planes as if it had been decoded alone, and written into the batch. Files are untrusted: a damaged sample gets an error
code (`layout.ERRORS`) instead of an exception.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.roc.cut import cover, cut_size
from fixres.pipelines.roc.decoder.jpeg_tables import Tables, empty_tables
from fixres.pipelines.roc.decoder.planes import on_level, planes_to_crop
from fixres.pipelines.roc.decoder.segments import Work, decode_window, empty_work, lay_out_planes, read_header
from fixres.pipelines.roc.decoder.views import Plans, disjoint_parts, empty_plans, join, num_pixels, shift_starts
from fixres.pipelines.runtime.numba_cache import kernel


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
    """Makes one crop of each of n samples. Kernels take arrays instead of objects: many parameters.

    The arguments are those of `decode_views` without the second axis; `out` is uint8 (n, r, r, 3), contiguous.
    """
    assert out.flags.c_contiguous
    places = out.reshape(-1), np.zeros(1, np.int64), np.array(out.shape[1:2])
    one = boxes[:, None], flips[:, None], bicubic[:, None]
    decode_views(data, table, *one, inside, min_zoom, *places, codes, counts)


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
        data: uint8, the whole file.
        table: int64 (n, 6), rows of `sample_table.locate_samples`; untrusted.
        boxes: float64 (n, v, 4): y, x, h, w in pixels of the image; untrusted.
        flips: bool (n, v).
        bicubic: bool (n, v): resize with the cubic filter, else with the triangle.
        inside: use no pixel outside the box (training), or let the filter reach beyond it (evaluation).
        min_zoom: see `layout.choose_level`.
        out: uint8, filled: crop k of sample i, (sides[k], sides[k], 3), begins at starts[k] + i * 3 * sides[k]**2. All
            crops of a sample are undefined if its code is not OK.
        starts: int64 (v,).
        sides: int64 (v,), pixels.
        codes: int64 (n,), filled.
        counts: int64 (n, 3), filled: bytes read, pixels decoded, shift of the level that the first crop used.
    """
    num_views = boxes.shape[1]
    tables, work, plans = empty_tables(), empty_work(), empty_plans(num_views)
    for i in range(table.shape[0]):
        counts[i, :] = 0
        codes[i] = layout.OK
        for k in range(num_views):
            if codes[i] == layout.OK:
                codes[i] = _plan(data, table[i], boxes[i, k], sides[k], inside, bicubic[i, k], min_zoom, plans, k)
        is_done = np.zeros(num_views, np.bool_)
        for k in range(num_views):
            if codes[i] == layout.OK and not is_done[k]:
                members, around = join(plans, k, is_done)
                how = flips[i], bicubic[i], out, starts, sides
                codes[i] = _decode_joined(data, table[i], members, around, plans, tables, work, i, how, counts[i])
        counts[i, layout.LEVEL_SHIFT] = plans.levels[0, layout.SHIFT] if codes[i] == layout.OK else 0


@kernel
def _plan(
    data: np.ndarray,
    sample: np.ndarray,
    box: np.ndarray,
    side: int,
    inside: bool,
    bicubic: bool,
    min_zoom: float,
    plans: Plans,
    k: int,
) -> int:
    """Chooses the level of crop k and finds its window; fills its row of the plans. Returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    error = layout.check_bounds(sample, data.size, box)
    if error != layout.OK:
        return error
    image, field = layout.sample_fields(data, sample)
    height, width = sample[layout.IMAGE_HEIGHT], sample[layout.IMAGE_WIDTH]
    level, window = plans.levels[k], plans.windows[k]
    error = layout.choose_level(field, image.size, height, width, box, side, min_zoom, level)
    if error != layout.OK:
        return error
    bounds, level_box = on_level(box, level[layout.SHIFT], height, width, side, inside, bicubic)
    for j in range(4):  # numba takes 1 s to compile the assignment of a slice
        plans.bounds[k, j], plans.boxes[k, j] = bounds[j], level_box[j]
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    return layout.TOO_LARGE if window[6] * window[7] > layout.MAX_PIXELS else layout.OK


@kernel
def _decode_joined(
    data: np.ndarray,
    sample: np.ndarray,
    members: np.ndarray,
    around: np.ndarray,
    plans: Plans,
    tables: Tables,
    work: Work,
    slot: int,
    how: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    counts: np.ndarray,
) -> int:
    """Decodes the segments that some crops of one level need, then makes the crops; returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    flips, bicubic, out, starts, sides = how
    image, field = layout.sample_fields(data, sample)
    level = plans.levels[members[0]]
    store = image if level[layout.IN_IMAGE] == 1 else field
    error = read_header(store, level, tables)
    if error != layout.OK:
        return error
    plane_starts, strides, shifted = np.empty(3, np.int64), np.empty(3, np.int32), np.empty(3, np.int64)
    planes = np.empty(lay_out_planes(level, around, plane_starts, strides), np.uint8)
    parts = disjoint_parts(plans.windows, members)
    for k in range(len(parts)):
        part = parts[k]
        shift_starts(level, around, part, plane_starts, strides, shifted)
        error = decode_window(store, field, level, part, tables, work, planes, shifted, strides)
        if error != layout.OK:
            return error
        counts[layout.BYTES] += cut_size(field, level, part) - level[layout.HEADER_SIZE]
        counts[layout.PIXELS] += num_pixels(level, part)
    counts[layout.BYTES] += level[layout.HEADER_SIZE]
    factors, gray = (level[layout.MCU_HEIGHT] // 8, level[layout.MCU_WIDTH] // 8), tables.frame[2] == 1
    for k in members:
        window, size = plans.windows[k], 3 * sides[k] * sides[k]
        shift_starts(level, around, window, plane_starts, strides, shifted)
        begin = starts[k] + slot * size
        crop = out[begin : begin + size].reshape(sides[k], sides[k], 3)
        place = plans.boxes[k], plans.bounds[k], flips[k], bicubic[k]
        planes_to_crop(planes, shifted, strides, window[4:], factors, gray, *place, crop)
    return layout.OK
