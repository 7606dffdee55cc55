"""Cuts whole batches for other decoders: small standard JPEG files in the rows of one array.

The width of that array is known when every sample's level and window are known. So there are two calls: `plan_cuts`,
then `write_cuts`. Each processes a run of samples on one thread without the GIL. Records are untrusted: a damaged
sample gets an error code (`layout.ERRORS`) instead of an exception. A decoder trusts the headers of a cut, so they are
compared with the record, and no cut is longer or larger than its level.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.roc.cut import cover, cut_size, write_cut
from fixres.pipelines.roc.decoder.planes import on_level
from fixres.pipelines.runtime.numba_cache import kernel

_WINDOW_WORDS = 8
NUM_PLAN = layout.LEVEL_WORDS + _WINDOW_WORDS
"""Words of a plan: the level, then the window that `cut.cover` fills."""


@kernel
def plan_cuts(
    data: np.ndarray,
    table: np.ndarray,
    boxes: np.ndarray,
    resolution: int,
    inside: bool,
    bicubic: bool,
    min_zoom: float,
    plans: np.ndarray,
    used: np.ndarray,
    cut_boxes: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Chooses what to cut for n samples. Kernels take arrays instead of objects: many parameters.

    Args:
        data, table, boxes, inside, min_zoom: as in `crops.decode_samples`.
        resolution: output side in pixels. Together with `min_zoom` it chooses the level.
        bicubic: the filter of the resize, which decides how many pixels outside the box it needs if not `inside`.
        plans: int64 (n, 20), filled for `write_cuts`.
        used: int64 (n, 4), filled: the pixels of the cut that may be used, y, x, h, w.
        cut_boxes: float64 (n, 4), filled: the box in pixels of the cut, y, x, h, w.
        codes: int64 (n,), filled.
        counts: int64 (n, 3), filled: bytes of the cut, its pixels, shift of its level. 0 if the code is not OK.
    """
    for i in range(table.shape[0]):
        counts[i, :], used[i, :], cut_boxes[i, :] = 0, 0, 0.0
        codes[i] = layout.check_bounds(table[i], data.size, boxes[i])
        if codes[i] == layout.OK:
            filled = used[i], cut_boxes[i], counts[i]
            codes[i] = _plan(data, table[i], boxes[i], resolution, inside, bicubic, min_zoom, plans[i], filled)


@kernel
def _plan(
    data: np.ndarray,
    sample: np.ndarray,
    box: np.ndarray,
    resolution: int,
    inside: bool,
    bicubic: bool,
    min_zoom: float,
    plan: np.ndarray,
    filled: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> int:
    """Plans one sample; fills `plan` and its rows of used pixels, boxes and counts. Returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    level, window, (used, cut_box, counts) = plan[: layout.LEVEL_WORDS], plan[layout.LEVEL_WORDS :], filled
    image, field = layout.sample_fields(data, sample)
    height, width = sample[layout.IMAGE_HEIGHT], sample[layout.IMAGE_WIDTH]
    error = layout.choose_level(field, image.size, height, width, box, resolution, min_zoom, level)
    if error != layout.OK:
        return error
    error = check_headers(image if level[layout.IN_IMAGE] == 1 else field, level)
    if error != layout.OK:
        return error
    bounds, level_box = on_level(box, level[layout.SHIFT], height, width, resolution, inside, bicubic)
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    if window[6] * window[7] > layout.MAX_PIXELS:
        return layout.TOO_LARGE
    size = cut_size(field, level, window)
    if size > level[layout.SIZE]:
        return layout.BAD_INDEX
    for axis in range(2):
        used[axis], used[axis + 2] = bounds[2 * axis] - window[4 + axis], bounds[2 * axis + 1] - bounds[2 * axis]
        cut_box[axis], cut_box[axis + 2] = level_box[axis] - window[4 + axis], level_box[axis + 2]
    counts[layout.BYTES], counts[layout.PIXELS] = size, window[6] * window[7]
    counts[layout.LEVEL_SHIFT] = level[layout.SHIFT]
    return layout.OK


@kernel
def write_cuts(
    data: np.ndarray, table: np.ndarray, plans: np.ndarray, counts: np.ndarray, out: np.ndarray, codes: np.ndarray
) -> None:
    """Writes the cuts of n samples that `plan_cuts` planned.

    Args:
        data, table, plans: as in `plan_cuts`.
        counts: int64 (n, 3), from `plan_cuts`.
        out: uint8 (n, m), m at least the bytes of the largest cut. Each row is filled with a cut, followed by zeros. It
            is all zeros if the code of the sample is not OK.
        codes: int64 (n,), from `plan_cuts`. Errors that are found only now are filled in.
    """
    for i in range(table.shape[0]):
        end = 0
        if codes[i] == layout.OK:
            image, field = layout.sample_fields(data, table[i])
            level, window = plans[i, : layout.LEVEL_WORDS], plans[i, layout.LEVEL_WORDS :]
            store = image if level[layout.IN_IMAGE] == 1 else field
            codes[i] = write_cut(store, field, level, window, out[i, : counts[i, layout.BYTES]])
            end = counts[i, layout.BYTES] if codes[i] == layout.OK else 0
        rest = out[i, end:]
        for k in range(rest.size):
            rest[k] = 0


@kernel
def check_headers(store: np.ndarray, level: np.ndarray) -> int:
    """Checks that a level's headers describe the same baseline JPEG as its record; returns OK or an error code.

    Size, sampling and restart interval must agree, and `write_cut` must patch the height of the frame. Otherwise a
    decoder would allocate memory for a size that was not checked. The tables are checked by the decoder. Arguments are
    those of `cut.write_cut`.
    """
    start = level[layout.START]
    at, end = start + 2, start + level[layout.HEADER_SIZE]
    num_components, interval = 0, 0
    if store[start] != 0xFF or store[start + 1] != layout.SOI:
        return layout.NOT_DECODABLE
    while at + 4 <= end and store[at] == 0xFF:
        marker, size = store[at + 1], _two_bytes(store, at + 2)
        after = at + 2 + size
        if size < 2 or after > end:
            return layout.NOT_DECODABLE
        if marker == layout.SOS:
            valid = num_components > 0 and after == end and size == 6 + 2 * num_components
            valid = valid and store[at + 4] == num_components and interval == level[layout.INTERVAL]
            return layout.OK if valid else layout.NOT_DECODABLE
        if marker == layout.SOF0:
            if num_components > 0 or at + 5 != start + level[layout.SOF_HEIGHT]:
                return layout.NOT_DECODABLE
            num_components = _num_components(store, at, size, level)
            if num_components == 0:
                return layout.WRONG_SIZE
        elif marker == layout.DRI:
            if size != 4:
                return layout.NOT_DECODABLE
            interval = _two_bytes(store, at + 4)
        elif marker not in (layout.DQT, layout.DHT, layout.COM) and not layout.APP0 <= marker <= layout.APP15:
            return layout.NOT_DECODABLE
        at = after
    return layout.NOT_DECODABLE


@kernel
def _num_components(store: np.ndarray, at: int, size: int, level: np.ndarray) -> int:
    """Number of components of the frame whose marker is at `at`; 0 if the frame does not fit the level."""
    if size < 11 or store[at + 4] != 8:
        return 0
    count = np.int64(store[at + 9])
    if (count != 1 and count != 3) or size != 8 + 3 * count:
        return 0
    if _two_bytes(store, at + 5) != level[layout.HEIGHT] or _two_bytes(store, at + 7) != level[layout.WIDTH]:
        return 0
    columns, rows = level[layout.MCU_WIDTH] // 8, level[layout.MCU_HEIGHT] // 8
    if count == 1:  # the MCU of a single component has one block, whatever its sampling
        return 1 if columns == 1 and rows == 1 else 0
    valid = store[at + 11] == (columns << 4 | rows) and store[at + 14] == 0x11 and store[at + 17] == 0x11
    return count if valid else 0


@kernel
def _two_bytes(store: np.ndarray, at: int) -> int:
    return np.int64(store[at]) << 8 | np.int64(store[at + 1])
