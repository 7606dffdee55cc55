"""The batch kernel for ordinary files: the whole JPEG decoded by libjpeg-turbo, the crop resampled out of it.

For those who have FFCV files and have not converted them. Same boxes, same resampler, nothing saved.
"""

from __future__ import annotations

import numpy as np

from pipelines.roc.decoder import turbojpeg
from pipelines.roc.decoder.planes import planes_to_crop
from pipelines.roc.decoder.turbojpeg import GREY, chroma_factors, decode_planes
from pipelines.roc.decoder.weighted_rows import whole_groups
from pipelines.roc.layout import NOT_DECODABLE, OK, TOO_LARGE, WRONG_SIZE
from pipelines.roc.places import (
    BYTES,
    IMAGE_HEIGHT,
    IMAGE_SIZE,
    IMAGE_START,
    IMAGE_WIDTH,
    MAX_PIXELS,
    PIXELS,
    check_place,
    on_level,
)
from pipelines.runtime.numba_cache import kernel

_SLACK = 64  # bytes behind a plane that group-wise reads may touch


@kernel
def decode_whole_samples(
    data: np.ndarray,
    places: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    inside: bool,
    handle: int,
    out: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Makes the crops of n samples; arguments as `decode.decode_samples` takes them, and

    Args:
        handle: of a `turbojpeg.Decompressor` that no other thread uses meanwhile.
    """
    for i in range(places.shape[0]):
        counts[i, :] = 0
        codes[i] = check_place(places[i], data.size, boxes[i])
        if codes[i] == OK:
            codes[i] = _decode_whole(data, places[i], boxes[i], flips[i], inside, handle, out[i], counts[i])


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
    bounds, box_there = on_level(box, 0, height, width, out.shape[0], inside)
    window = np.array([0, 0, height, width])
    planes_to_crop(planes, starts, strides, window, factors, numbers[2] == GREY, box_there, bounds, flip, out)
    return OK


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
