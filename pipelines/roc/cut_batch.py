"""Cuts whole batches for decoders other than ours: small standard JPEG files in the rows of one array.

How wide that array must be is known when every sample's level and cover are, so there are two calls: `plan_cuts`, then
`write_cuts`. Each makes a run of samples on one thread, without the GIL and without trust: a sample gets a code
(`layout.ERRORS`) instead of an exception. The decoder that gets a cut believes its headers, so they are compared with
the record, and no cut is longer or larger than its level.
"""

from __future__ import annotations

import numpy as np

from pipelines.roc.cut import cover, cut, cut_size
from pipelines.roc.layout import (
    BAD_INDEX,
    HEADER_SIZE,
    HEIGHT,
    IN_IMAGE,
    INTERVAL,
    LEVEL_WORDS,
    MCU_HEIGHT,
    MCU_WIDTH,
    NOT_DECODABLE,
    OK,
    SHIFT,
    SIZE,
    SOF_HEIGHT,
    START,
    TOO_LARGE,
    WIDTH,
    WRONG_SIZE,
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

_WINDOW_WORDS = 8
NUM_PLAN = LEVEL_WORDS + _WINDOW_WORDS
"""Words of a plan: the level, then the window that `cut.cover` fills."""

_SOI, _SOF0, _DHT, _SOS, _DQT, _DRI, _APP0, _APP15, _COM = 0xD8, 0xC0, 0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xEF, 0xFE


@kernel
def plan_cuts(
    data: np.ndarray,
    places: np.ndarray,
    boxes: np.ndarray,
    resolution: int,
    inside: bool,
    min_zoom: float,
    plans: np.ndarray,
    used: np.ndarray,
    boxes_there: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Chooses what to cut for n samples.

    Args:
        data: uint8, the whole file.
        places: int64 (n, 6), see `decode.decode_samples`. Need not be right.
        boxes: float64 (n, 4): y, x, h, w in pixels of the image. Need not be right.
        resolution: output side in pixels, which chooses the level together with `min_zoom`.
        inside: use no pixel outside the box (training), or let the filter reach over it (evaluation).
        min_zoom: the quality knob of `layout.choose_level`.
        plans: int64 (n, 20), filled for `write_cuts`.
        used: int64 (n, 4), filled: the pixels of the cut that may be used, y, x, h, w.
        boxes_there: float64 (n, 4), filled: the box in pixels of the cut, y, x, h, w.
        codes: int64 (n,), filled.
        counts: int64 (n, 3), filled: bytes of the cut, its pixels, shift of its level. 0 if the code is not OK.
    """
    for i in range(places.shape[0]):
        counts[i, :], used[i, :], boxes_there[i, :] = 0, 0, 0.0
        codes[i] = check_place(places[i], data.size, boxes[i])
        if codes[i] == OK:
            level, window = plans[i, :LEVEL_WORDS], plans[i, LEVEL_WORDS:]
            codes[i] = _plan(
                data,
                places[i],
                boxes[i],
                resolution,
                inside,
                min_zoom,
                level,
                window,
                used[i],
                boxes_there[i],
                counts[i],
            )


@kernel
def _plan(
    data: np.ndarray,
    place: np.ndarray,
    box: np.ndarray,
    resolution: int,
    inside: bool,
    min_zoom: float,
    level: np.ndarray,
    window: np.ndarray,
    used: np.ndarray,
    box_there: np.ndarray,
    counts: np.ndarray,
) -> int:
    """One sample; returns OK or an error code."""
    image, field = _fields(data, place)
    height, width = place[IMAGE_HEIGHT], place[IMAGE_WIDTH]
    error = choose_level(field, image.size, height, width, box, resolution, min_zoom, level)
    if error != OK:
        return error
    error = check_headers(image if level[IN_IMAGE] == 1 else field, level)
    if error != OK:
        return error
    bounds, scaled = on_level(box, level[SHIFT], height, width, resolution, inside)
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    if window[6] * window[7] > MAX_PIXELS:
        return TOO_LARGE
    size = cut_size(field, level, window)
    if size > level[SIZE]:
        return BAD_INDEX
    for axis in range(2):
        used[axis], used[axis + 2] = bounds[2 * axis] - window[4 + axis], bounds[2 * axis + 1] - bounds[2 * axis]
        box_there[axis], box_there[axis + 2] = scaled[axis] - window[4 + axis], scaled[axis + 2]
    counts[BYTES], counts[PIXELS], counts[LEVEL_SHIFT] = size, window[6] * window[7], level[SHIFT]
    return OK


@kernel
def write_cuts(
    data: np.ndarray, places: np.ndarray, plans: np.ndarray, counts: np.ndarray, out: np.ndarray, codes: np.ndarray
) -> None:
    """Writes the cuts of n samples whose places and plans are those of one `plan_cuts`.

    Args:
        data, places, plans: as there.
        counts: int64 (n, 3), as there.
        out: uint8 (n, m), m at least the largest cut's bytes. Filled with the cuts, zeros behind them; the row of a
            sample whose code is not OK is all zeros.
        codes: int64 (n,), OK or not, as `plan_cuts` left them; errors that show only now are filled in.
    """
    for i in range(places.shape[0]):
        end = 0
        if codes[i] == OK:
            image, field = _fields(data, places[i])
            level, window = plans[i, :LEVEL_WORDS], plans[i, LEVEL_WORDS:]
            store = image if level[IN_IMAGE] == 1 else field
            codes[i] = cut(store, field, level, window, out[i, : counts[i, BYTES]])
            end = counts[i, BYTES] if codes[i] == OK else 0
        rest = out[i, end:]
        for k in range(rest.size):
            rest[k] = 0


@kernel
def _fields(data: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image field and the `roc` field of a sample whose place was checked."""
    image = data[place[IMAGE_START] : place[IMAGE_START] + place[IMAGE_SIZE]]
    return image, data[place[ROC_START] : place[ROC_START] + place[ROC_SIZE]]


@kernel
def check_headers(store: np.ndarray, level: np.ndarray) -> int:
    """Whether a level's headers describe the baseline JPEG that its record describes; OK or an error code.

    Size, sampling and restart interval must agree, and the height that `cut` patches must be the frame's: else a
    decoder would make room for a size that nobody checked. Tables are left to the decoder.

    Args:
        store: uint8, the field that holds the level's JPEG.
        level: int64 (12,), checked by `layout.read_level` against that field.
    """
    start = level[START]
    at, end = start + 2, start + level[HEADER_SIZE]
    num_components, interval = 0, 0
    if store[start] != 0xFF or store[start + 1] != _SOI:
        return NOT_DECODABLE
    while at + 4 <= end and store[at] == 0xFF:
        marker, size = store[at + 1], _two_bytes(store, at + 2)
        after = at + 2 + size
        if size < 2 or after > end:
            return NOT_DECODABLE
        if marker == _SOS:
            sound = num_components > 0 and after == end and size == 6 + 2 * num_components
            return OK if sound and store[at + 4] == num_components and interval == level[INTERVAL] else NOT_DECODABLE
        if marker == _SOF0:
            if num_components > 0 or at + 5 != start + level[SOF_HEIGHT]:
                return NOT_DECODABLE
            num_components = _num_components(store, at, size, level)
            if num_components == 0:
                return WRONG_SIZE
        elif marker == _DRI:
            if size != 4:
                return NOT_DECODABLE
            interval = _two_bytes(store, at + 4)
        elif not (marker == _DQT or marker == _DHT or marker == _COM or _APP0 <= marker <= _APP15):
            return NOT_DECODABLE
        at = after
    return NOT_DECODABLE


@kernel
def _num_components(store: np.ndarray, at: int, size: int, level: np.ndarray) -> int:
    """Components of the frame whose marker stands at `at`; 0 if it is not the frame of this level."""
    if size < 11 or store[at + 4] != 8:
        return 0
    count = np.int64(store[at + 9])
    if (count != 1 and count != 3) or size != 8 + 3 * count:
        return 0
    if _two_bytes(store, at + 5) != level[HEIGHT] or _two_bytes(store, at + 7) != level[WIDTH]:
        return 0
    columns, rows = level[MCU_WIDTH] // 8, level[MCU_HEIGHT] // 8
    if count == 1:  # a lone component has MCUs of one block, whatever its sampling
        return 1 if columns == 1 and rows == 1 else 0
    sound = store[at + 11] == (columns << 4 | rows) and store[at + 14] == 0x11 and store[at + 17] == 0x11
    return count if sound else 0


@kernel
def _two_bytes(store: np.ndarray, at: int) -> int:
    return np.int64(store[at]) << 8 | np.int64(store[at + 1])
