"""The batch kernel for ordinary files: libjpeg-turbo decodes the whole JPEG, then the crop is resampled from it.

Benchmarks and tests compare with it: same boxes, same resampler, but no decoding is saved.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.roc.layout as layout
from fixres.pipelines.roc.decoder.planes import on_level, planes_to_crop
from fixres.pipelines.roc.decoder.turbojpeg import GRAY, chroma_factors, decode_planes, read_header, reset
from fixres.pipelines.roc.decoder.weighted_rows import whole_groups
from fixres.pipelines.runtime.numba_cache import kernel

_SLACK = 64  # bytes behind the last plane that reads of whole groups may touch


@kernel
def decode_whole_images(
    data: np.ndarray,
    table: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    bicubic: np.ndarray,
    inside: bool,
    handle: int,
    out: np.ndarray,
    starts: np.ndarray,
    sides: np.ndarray,
    codes: np.ndarray,
    counts: np.ndarray,
) -> None:
    """Makes v crops of each of n samples. Arguments are those of `crops.decode_views`.

    Kernels take arrays instead of objects: many parameters.

    Instead of `min_zoom` it takes the handle of a `turbojpeg.Decompressor` that no other thread uses at the same time.
    """
    for i in range(table.shape[0]):
        counts[i, :] = 0
        codes[i] = layout.OK
        for k in range(boxes.shape[1]):
            if codes[i] == layout.OK:
                codes[i] = layout.check_bounds(table[i], data.size, boxes[i, k])
        if codes[i] == layout.OK:
            places = starts + i * 3 * sides * sides, sides
            codes[i] = _decode_image(
                data, table[i], boxes[i], flips[i], bicubic[i], inside, handle, out, places, counts[i]
            )


@kernel
def _decode_image(
    data: np.ndarray,
    sample: np.ndarray,
    boxes: np.ndarray,
    flips: np.ndarray,
    bicubic: np.ndarray,
    inside: bool,
    handle: int,
    out: np.ndarray,
    places: tuple[np.ndarray, np.ndarray],
    counts: np.ndarray,
) -> int:
    """Decodes one image and makes its crops; returns OK or an error code.

    Kernels take arrays instead of objects: many parameters.
    """
    jpeg, _ = layout.sample_fields(data, sample)
    height, width = sample[layout.IMAGE_HEIGHT], sample[layout.IMAGE_WIDTH]
    if height * width > layout.MAX_PIXELS:
        return layout.TOO_LARGE
    numbers = np.empty(4, np.int32)
    if not read_header(handle, jpeg, numbers):
        reset(handle)
        return layout.NOT_DECODABLE
    # The JPEG's own headers decide how much the decoder writes, so they must agree with the table.
    if numbers[0] != width or numbers[1] != height:
        return layout.WRONG_SIZE
    factors = chroma_factors(numbers[2])
    starts, strides = np.empty(3, np.int64), np.empty(3, np.int32)
    planes = np.empty(lay_out_planes(height, width, factors, starts, strides), np.uint8)
    if not decode_planes(handle, jpeg, height, width, planes, starts, strides):
        reset(handle)
        return layout.NOT_DECODABLE
    counts[layout.BYTES], counts[layout.PIXELS] = jpeg.size, height * width
    window, gray = np.array([0, 0, height, width]), numbers[2] == GRAY
    for k in range(len(boxes)):
        begin, side = places[0][k], places[1][k]
        crop = out[begin : begin + 3 * side * side].reshape(side, side, 3)
        bounds, level_box = on_level(boxes[k], 0, height, width, side, inside, bicubic[k])
        how = flips[k], bicubic[k]
        planes_to_crop(planes, starts, strides, window, factors, gray, level_box, bounds, *how, crop)
    return layout.OK


@kernel
def lay_out_planes(height: int, width: int, factors: tuple[int, int], starts: np.ndarray, strides: np.ndarray) -> int:
    """Lays out three planes in one buffer, each row a whole number of groups.

    TurboJPEG pads a plane to a multiple of the chroma factor, at most 4. Four more bytes and rows leave room for that.

    Returns:
        Bytes of the buffer. `starts` and `strides` are filled as in `segments.lay_out_planes`; `factors` are the rows
        and columns of pixels per chroma sample.
    """
    strides[0], strides[1] = whole_groups(width + 4), whole_groups((width + factors[1] - 1) // factors[1] + 4)
    strides[2] = strides[1]
    starts[0] = 0
    starts[1] = np.int64(strides[0]) * (height + 4)
    starts[2] = starts[1] + np.int64(strides[1]) * ((height + factors[0] - 1) // factors[0] + 4)
    return 2 * starts[2] - starts[1] + _SLACK
