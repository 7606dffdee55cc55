"""The batch kernel: from stored bytes to finished crops, without the GIL and without trust.

A call makes a run of samples on one thread. Each sample: choose the level, cut, decode to planes, resample, convert,
write into the batch. Nothing is raised for bad data; each sample gets a code (`layout.ERRORS`).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from pipelines.beton import BetonReader
from pipelines.beton_format import MODE_RAW
from pipelines.roc.combine import whole_groups
from pipelines.roc.cut import cover, cut, cut_size
from pipelines.roc.layout import (
    BAD_BOX,
    BAD_INDEX,
    IN_IMAGE,
    LEVEL_WORDS,
    MCU_HEIGHT,
    MCU_WIDTH,
    NOT_DECODABLE,
    OK,
    OUTSIDE_FILE,
    SHIFT,
    SIZE,
    TOO_LARGE,
    WRONG_SIZE,
    choose_level,
)
from pipelines.roc.planes import planes_to_crop, used_range
from pipelines.roc.turbojpeg import GREY, chroma_factors, decode_planes, read_header, reset
from pipelines.spec import InputError

MAX_PIXELS = 1 << 27  # a decoder's planes then need at most 400 MB
_SLACK = 64  # bytes behind a plane that group-wise reads may touch

# Columns of a place: where a sample lies in the file.
IMAGE_START, IMAGE_SIZE, ROC_START, ROC_SIZE, IMAGE_HEIGHT, IMAGE_WIDTH = range(6)
NUM_PLACE = 6
# Columns of the counts.
BYTES, PIXELS, LEVEL_SHIFT = range(3)
NUM_COUNTS = 3


def places_of(reader: BetonReader) -> np.ndarray:
    """int64 (N, 6): where each sample of a file lies and its size, as the kernel takes it."""
    if (reader.modes == MODE_RAW).any():
        raise InputError(
            f"{reader.path} holds raw pixels, and engine='roc' reads JPEG images; "
            "convert the data with --format roc, or choose --engine ffcv"
        )
    places = np.zeros((len(reader), NUM_PLACE), np.int64)
    places[:, :2] = reader.image_spans
    if "roc" in reader.field_names:
        places[:, 2:4] = reader.field_spans("roc")
    places[:, 4:] = reader.sizes
    return places


@njit(nogil=True, cache=True)
def decode_samples(
    data: np.ndarray,
    places: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    inside: bool,
    min_zoom: float,
    handle: int,
    out: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Makes the crops of n samples.

    Args:
        data: uint8, the whole file.
        places: int64 (n, 6): start and size of the image field, start and size of the `roc` field (size 0: none, the
            image is decoded whole), height and width of the image. Need not be right.
        boxes: float64 (n, 4): y, x, h, w in pixels of the image. Need not be right.
        flips: bool (n,).
        inside: use no pixel outside the box (training), or let the filter reach over it (evaluation).
        min_zoom: the quality knob of `layout.choose_level`.
        handle: of a `turbojpeg.Decompressor` that no other thread uses meanwhile.
        out: uint8 (n, r, r, 3), contiguous. What stands there for a sample whose code is not OK is undefined.
        codes: int64 (n,), filled.
        counts: int64 (n, 3), filled: bytes read, pixels decoded, shift of the level used.
    """
    scratch = np.empty(1 << 16, np.uint8)
    for i in range(places.shape[0]):
        counts[i, :] = 0
        codes[i] = _check_place(places[i], data.size, boxes[i])
        if codes[i] != OK:
            continue
        if places[i, ROC_SIZE] == 0:
            codes[i] = _decode_whole(data, places[i], boxes[i], flips[i], inside, handle, out[i], counts[i])
        else:
            needed = _decode_cut(
                data, places[i], boxes[i], flips[i], inside, min_zoom, handle, scratch, out[i], counts[i]
            )
            if needed < 0:  # the scratch buffer should have had so many bytes
                scratch = np.empty(-needed * 2, np.uint8)
                needed = _decode_cut(
                    data, places[i], boxes[i], flips[i], inside, min_zoom, handle, scratch, out[i], counts[i]
                )
            codes[i] = needed


@njit(nogil=True, cache=True)
def _check_place(place: np.ndarray, file_size: int, box: np.ndarray) -> int:
    """Whether a sample's fields lie in the file and its box in the image."""
    for start, size in ((place[IMAGE_START], place[IMAGE_SIZE]), (place[ROC_START], place[ROC_SIZE])):
        if start < 0 or size < 0 or start > file_size or size > file_size - start:
            return OUTSIDE_FILE
    height, width = place[IMAGE_HEIGHT], place[IMAGE_WIDTH]
    if not (1 <= height <= 65535 and 1 <= width <= 65535):
        return WRONG_SIZE
    slack = 1e-6  # a NaN fails every one of these
    if box[0] >= -slack and box[1] >= -slack and box[2] > 0 and box[3] > 0:
        if box[0] + box[2] <= height + slack and box[1] + box[3] <= width + slack:
            return OK
    return BAD_BOX


@njit(nogil=True, cache=True)
def _decode_cut(
    data: np.ndarray,
    place: np.ndarray,
    box: np.ndarray,
    flip: bool,
    inside: bool,
    min_zoom: float,
    handle: int,
    scratch: np.ndarray,
    out: np.ndarray,
    counts: np.ndarray,
) -> int:
    """One sample of a RoC file. Returns OK, an error code, or minus the bytes that `scratch` should have."""
    image = data[place[IMAGE_START] : place[IMAGE_START] + place[IMAGE_SIZE]]
    field = data[place[ROC_START] : place[ROC_START] + place[ROC_SIZE]]
    height, width, resolution = place[IMAGE_HEIGHT], place[IMAGE_WIDTH], out.shape[0]
    level, window = np.empty(LEVEL_WORDS, np.int64), np.empty(8, np.int64)
    error = choose_level(field, image.size, height, width, box, resolution, min_zoom, level)
    if error != OK:
        return error
    shift = level[SHIFT]
    bounds, on_level = _on_level(box, shift, height, width, resolution, inside)
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    size = cut_size(field, level, window)
    if size > level[SIZE]:
        return BAD_INDEX
    if size > scratch.size:
        return -size
    jpeg = scratch[:size]
    error = cut(image if level[IN_IMAGE] == 1 else field, field, level, window, jpeg)
    if error != OK:
        return error
    counts[BYTES], counts[PIXELS], counts[LEVEL_SHIFT] = size, window[6] * window[7], shift
    mcu = (level[MCU_HEIGHT], level[MCU_WIDTH])
    return _decode_window(handle, jpeg, window[4:], mcu, on_level, bounds, flip, out)


@njit(nogil=True, cache=True)
def _decode_whole(
    data: np.ndarray,
    place: np.ndarray,
    box: np.ndarray,
    flip: bool,
    inside: bool,
    handle: int,
    out: np.ndarray,
    counts: np.ndarray,
) -> int:
    """One sample of an ordinary file: the same without cutting."""
    jpeg = data[place[IMAGE_START] : place[IMAGE_START] + place[IMAGE_SIZE]]
    height, width = place[IMAGE_HEIGHT], place[IMAGE_WIDTH]
    window = np.array([0, 0, height, width])
    bounds, on_level = _on_level(box, 0, height, width, out.shape[0], inside)
    counts[BYTES], counts[PIXELS] = jpeg.size, height * width
    return _decode_window(handle, jpeg, window, (0, 0), on_level, bounds, flip, out)


@njit(nogil=True, cache=True)
def _on_level(
    box: np.ndarray, shift: int, height: int, width: int, resolution: int, inside: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of a level may be used, int64 (4,) (y low, y high, x low, x high), and the box there, float64."""
    scaled, bounds, round_up = np.empty(4), np.empty(4, np.int64), (1 << shift) - 1
    for k in range(4):
        scaled[k] = max(box[k] / (1 << shift), 0.0)
    extents = ((height + round_up) >> shift, (width + round_up) >> shift)
    for axis in range(2):
        low, high = used_range(scaled[axis], scaled[axis + 2], extents[axis], resolution, inside)
        bounds[2 * axis], bounds[2 * axis + 1] = low, high
    return bounds, scaled


@njit(nogil=True, cache=True)
def _decode_window(
    handle: int,
    jpeg: np.ndarray,
    window: np.ndarray,
    mcu: tuple[int, int],
    box: np.ndarray,
    bounds: np.ndarray,
    flip: bool,
    out: np.ndarray,
) -> int:
    """Decodes a JPEG that holds the pixels `window` (y, x, height, width) and resamples the box out of it.

    The JPEG's own headers decide how much the decoder writes, so they must agree with `window`, and with `mcu` (height
    and width; 0 where any will do) about chroma.
    """
    numbers = np.empty(4, np.int32)
    if not read_header(handle, jpeg, numbers):
        reset(handle)
        return NOT_DECODABLE
    if numbers[0] != window[3] or numbers[1] != window[2]:
        return WRONG_SIZE
    if window[2] * window[3] > MAX_PIXELS:
        return TOO_LARGE
    factors = chroma_factors(numbers[2])
    if mcu[0] != 0 and (mcu[0] != 8 * factors[0] or mcu[1] != 8 * factors[1]):
        return WRONG_SIZE
    starts, strides = np.empty(3, np.int64), np.empty(3, np.int32)
    planes = np.empty(place_planes(window[2], window[3], factors, starts, strides), np.uint8)
    if not decode_planes(handle, jpeg, window[2], window[3], planes, starts, strides):
        reset(handle)
        return NOT_DECODABLE
    planes_to_crop(planes, starts, strides, window, factors, numbers[2] == GREY, box, bounds, flip, out)
    return OK


@njit(nogil=True, cache=True)
def place_planes(height: int, width: int, factors: tuple[int, int], starts: np.ndarray, strides: np.ndarray) -> int:
    """Lays out three planes in one buffer, each row a whole number of groups; fills `starts`, `strides`.

    TurboJPEG pads a plane to a multiple of the chroma factor, 4 at most; four more bytes and rows cover it.

    Returns:
        Bytes of the buffer.
    """
    strides[0], strides[1] = whole_groups(width + 4), whole_groups((width + factors[1] - 1) // factors[1] + 4)
    strides[2] = strides[1]
    starts[0] = 0
    starts[1] = np.int64(strides[0]) * (height + 4)
    starts[2] = starts[1] + np.int64(strides[1]) * ((height + factors[0] - 1) // factors[0] + 4)
    return 2 * starts[2] - starts[1] + _SLACK
