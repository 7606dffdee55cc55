"""The batch kernel for RoC files: from stored bytes to finished crops, without the GIL and without trust.

A call makes a run of samples on one thread. Each sample: choose the level, decode the segments that the crop needs to
planes, resample, convert, write into the batch. Nothing is raised for bad data; each sample gets a code
(`layout.ERRORS`).
"""

from __future__ import annotations

import numpy as np

from pipelines.roc.cut import cover, cut_size
from pipelines.roc.decoder.jpeg_tables import Tables, empty_tables
from pipelines.roc.decoder.planes import planes_to_crop
from pipelines.roc.decoder.segments import decode_window, place_planes, read_header
from pipelines.roc.layout import (
    IN_IMAGE,
    LEVEL_WORDS,
    MCU_HEIGHT,
    MCU_WIDTH,
    OK,
    SHIFT,
    TOO_LARGE,
    choose_level,
)
from pipelines.roc.places import (
    BYTES,
    IMAGE_HEIGHT,
    IMAGE_SIZE,
    IMAGE_START,
    IMAGE_WIDTH,
    LEVEL_SHIFT,
    MAX_PIXELS,
    PIXELS,
    ROC_SIZE,
    ROC_START,
    check_place,
    on_level,
)
from pipelines.runtime.numba_cache import kernel


@kernel
def decode_samples(
    data: np.ndarray,
    places: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    inside: bool,
    min_zoom: float,
    out: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Makes the crops of n samples.

    Args:
        data: uint8, the whole file.
        places: int64 (n, 6): start and size of the image field, start and size of the `roc` field, height and width of
            the image. Need not be right.
        boxes: float64 (n, 4): y, x, h, w in pixels of the image. Need not be right.
        flips: bool (n,).
        inside: use no pixel outside the box (training), or let the filter reach over it (evaluation).
        min_zoom: the quality knob of `layout.choose_level`.
        out: uint8 (n, r, r, 3), contiguous. What stands there for a sample whose code is not OK is undefined.
        codes: int64 (n,), filled.
        counts: int64 (n, 3), filled: bytes read, pixels decoded, shift of the level used.
    """
    tables = empty_tables()
    for i in range(places.shape[0]):
        counts[i, :] = 0
        codes[i] = check_place(places[i], data.size, boxes[i])
        if codes[i] == OK:
            codes[i] = _decode_crop(data, places[i], boxes[i], flips[i], inside, min_zoom, tables, out[i], counts[i])


@kernel
def _decode_crop(
    data: np.ndarray,
    place: np.ndarray,
    box: np.ndarray,
    flip: bool,
    inside: bool,
    min_zoom: float,
    tables: Tables,
    out: np.ndarray,
    counts: np.ndarray,
) -> int:
    """One sample of a RoC file: only the segments that its crop needs. Returns OK or an error code."""
    image = data[place[IMAGE_START] : place[IMAGE_START] + place[IMAGE_SIZE]]
    field = data[place[ROC_START] : place[ROC_START] + place[ROC_SIZE]]
    height, width, resolution = place[IMAGE_HEIGHT], place[IMAGE_WIDTH], out.shape[0]
    level, window = np.empty(LEVEL_WORDS, np.int64), np.empty(8, np.int64)
    error = choose_level(field, image.size, height, width, box, resolution, min_zoom, level)
    if error != OK:
        return error
    store, shift = image if level[IN_IMAGE] == 1 else field, level[SHIFT]
    error = read_header(store, level, tables)
    if error != OK:
        return error
    bounds, box_there = on_level(box, shift, height, width, resolution, inside)
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    if window[6] * window[7] > MAX_PIXELS:
        return TOO_LARGE
    starts, strides = np.empty(3, np.int64), np.empty(3, np.int32)
    planes = np.empty(place_planes(level, window, starts, strides), np.uint8)
    error = decode_window(store, field, level, window, tables, planes, starts, strides)
    if error != OK:
        return error
    counts[BYTES], counts[PIXELS], counts[LEVEL_SHIFT] = cut_size(field, level, window), window[6] * window[7], shift
    factors = (level[MCU_HEIGHT] // 8, level[MCU_WIDTH] // 8)
    planes_to_crop(planes, starts, strides, window[4:], factors, tables.frame[2] == 1, box_there, bounds, flip, out)
    return OK
