"""The batch kernel: from stored bytes to finished crops, without the GIL and without trust.

A call makes a run of samples on one thread. Each sample: choose the level, decode the segments that the crop needs to
planes, resample, convert, write into the batch. Nothing is raised for bad data; each sample gets a code
(`layout.ERRORS`).
"""

from __future__ import annotations

import numpy as np

from pipelines.beton import BetonReader
from pipelines.beton_format import MODE_RAW
from pipelines.kernels import kernel
from pipelines.roc import segments, turbojpeg
from pipelines.roc.combine import whole_groups
from pipelines.roc.cut import cover, cut_size
from pipelines.roc.layout import (
    BAD_BOX,
    IN_IMAGE,
    LEVEL_WORDS,
    MCU_HEIGHT,
    MCU_WIDTH,
    NOT_DECODABLE,
    OK,
    OUTSIDE_FILE,
    SHIFT,
    TOO_LARGE,
    WRONG_SIZE,
    choose_level,
)
from pipelines.roc.planes import planes_to_crop, used_range
from pipelines.roc.segments import decode_window, read_header
from pipelines.roc.tables import Tables, empty_tables
from pipelines.roc.turbojpeg import GREY, chroma_factors, decode_planes
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


@kernel
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
    tables = empty_tables()
    for i in range(places.shape[0]):
        counts[i, :] = 0
        codes[i] = _check_place(places[i], data.size, boxes[i])
        if codes[i] != OK:
            continue
        if places[i, ROC_SIZE] == 0:
            codes[i] = _decode_whole(data, places[i], boxes[i], flips[i], inside, handle, out[i], counts[i])
        else:
            codes[i] = _decode_crop(data, places[i], boxes[i], flips[i], inside, min_zoom, tables, out[i], counts[i])


@kernel
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
    bounds, on_level = _on_level(box, shift, height, width, resolution, inside)
    cover(level, bounds[0], bounds[1], bounds[2], bounds[3], window)
    if window[6] * window[7] > MAX_PIXELS:
        return TOO_LARGE
    starts, strides = np.empty(3, np.int64), np.empty(3, np.int32)
    planes = np.empty(segments.place_planes(level, window, starts, strides), np.uint8)
    error = decode_window(store, field, level, window, tables, planes, starts, strides)
    if error != OK:
        return error
    counts[BYTES], counts[PIXELS], counts[LEVEL_SHIFT] = cut_size(field, level, window), window[6] * window[7], shift
    factors = (level[MCU_HEIGHT] // 8, level[MCU_WIDTH] // 8)
    planes_to_crop(planes, starts, strides, window[4:], factors, tables.frame[2] == 1, on_level, bounds, flip, out)
    return OK


@kernel
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
    """One sample of an ordinary file: its whole JPEG. Returns OK or an error code."""
    jpeg = data[place[IMAGE_START] : place[IMAGE_START] + place[IMAGE_SIZE]]
    height, width = place[IMAGE_HEIGHT], place[IMAGE_WIDTH]
    if height * width > MAX_PIXELS:
        return TOO_LARGE
    numbers = np.empty(4, np.int32)
    if not turbojpeg.read_header(handle, jpeg, numbers):
        turbojpeg.reset(handle)
        return NOT_DECODABLE
    # The JPEG's own headers decide how much the decoder writes, so they must agree.
    if numbers[0] != width or numbers[1] != height:
        return WRONG_SIZE
    factors = chroma_factors(numbers[2])
    starts, strides = np.empty(3, np.int64), np.empty(3, np.int32)
    planes = np.empty(place_planes(height, width, factors, starts, strides), np.uint8)
    if not decode_planes(handle, jpeg, height, width, planes, starts, strides):
        turbojpeg.reset(handle)
        return NOT_DECODABLE
    counts[BYTES], counts[PIXELS] = jpeg.size, height * width
    bounds, on_level = _on_level(box, 0, height, width, out.shape[0], inside)
    window = np.array([0, 0, height, width])
    planes_to_crop(planes, starts, strides, window, factors, numbers[2] == GREY, on_level, bounds, flip, out)
    return OK


@kernel
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


@kernel
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
