"""From decoded YCbCr planes to the finished crop: each plane is resampled as it is stored, then colors are converted.

Chroma is not upsampled first. Its weights are the product of upsampling and resizing, so each output pixel is the same
as with libjpeg's own (fancy) upsampling followed by the resize. Colors are converted on output pixels only.
"""

from __future__ import annotations

import math

import numpy as np

from fixres.pipelines.images.resampling import SIGNED_ONE, WEIGHT_ONE, fill_taps, num_taps, reach_of
from fixres.pipelines.roc.decoder.color import ycc_to_rgb
from fixres.pipelines.roc.decoder.transpose import transpose
from fixres.pipelines.roc.decoder.weighted_rows import GROUP, sum_rows_of_bytes, sum_rows_of_words, whole_groups
from fixres.pipelines.roc.layout import MAX_PLAIN_WIDTH
from fixres.pipelines.runtime.numba_cache import kernel, shared_kernel


@kernel
def used_range(
    start: float, length: float, extent: int, resolution: int, inside: bool, bicubic: bool
) -> tuple[int, int]:
    """The pixels [low, high) of an axis that a box's output depends on.

    Args:
        start, length: the box.
        extent: pixels of the image along the axis.
        resolution: output pixels.
        inside: use no pixel outside the box, as in torchvision's crop followed by resize. Otherwise the filter reaches
            beyond it, up to the border of the image, as in Pillow's `resize(box=)`.
        bicubic: the filter, which decides how far it reaches.
    """
    if inside:
        low, high = math.floor(start), math.ceil(start + length)
    else:
        step = length / resolution
        reach = reach_of(step, bicubic) - 0.5 * step
        low, high = math.floor(start - reach + 0.5), math.floor(start + length + reach + 0.5)
    low = min(max(low, 0), extent - 1)
    return low, max(min(high, extent), low + 1)


@shared_kernel
def on_level(
    box: np.ndarray, shift: int, height: int, width: int, resolution: int, inside: bool, bicubic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A box of an image on one of its levels.

    Args:
        box: float64 (4,): y, x, h, w in pixels of the image.
        shift: log2 of the level's reduction.
        height, width: of the image.
        resolution, inside, bicubic: see `used_range`.

    Returns:
        The pixels of the level that may be used, int64 (4,): y low, y high, x low, x high. The box in pixels of the
        level, float64 (4,).
    """
    scaled, bounds, round_up = np.empty(4), np.empty(4, np.int64), (1 << shift) - 1
    for k in range(4):
        scaled[k] = max(box[k] / (1 << shift), 0.0)
    extents = ((height + round_up) >> shift, (width + round_up) >> shift)
    for axis in range(2):
        low, high = used_range(scaled[axis], scaled[axis + 2], extents[axis], resolution, inside, bicubic)
        bounds[2 * axis], bounds[2 * axis + 1] = low, high
    return bounds, scaled


@kernel
def luma_taps(
    start: float, length: float, low: int, high: int, resolution: int, flip: bool, bicubic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """First pixel, int32 (r,), and weights, uint16 (r, taps), of each output pixel along one axis."""
    first = np.empty(resolution, np.int32)
    weights = np.empty((resolution, num_taps(length, resolution, low, high, bicubic)), np.uint16)
    fill_taps(start, length, low, high, flip, bicubic, first, weights)
    return first, weights


@kernel
def chroma_taps(
    first: np.ndarray, weights: np.ndarray, factor: int, low: int, high: int, fancy: bool, bicubic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The weights of chroma samples that give the same output pixels as `weights` of upsampled pixels.

    If two pixels share a chroma sample, a pixel takes 3/4 of it and 1/4 of the next nearest one (libjpeg's fancy
    upsampling). If four pixels share it, each takes the sample itself.

    Args:
        first, weights: from `luma_taps`.
        factor: pixels that share one chroma sample along this axis: 1, 2 or 4.
        low, high: the chroma samples [low, high) that exist; samples beyond repeat the outermost.
        fancy: False: two pixels that share a sample take the sample itself.
        bicubic: the weights are int16 that sum to SIGNED_ONE.

    Returns:
        First sample, int32 (r,), and weights, uint16 (r, taps).
    """
    if factor == 1:
        return first, weights
    resolution, taps = weights.shape
    count = min(taps // factor + 2, high - low)
    first_sample, sample_weights = np.empty(resolution, np.int32), np.empty((resolution, count), np.uint16)
    quarters = np.empty(count, np.int64)
    for i in range(resolution):
        position = (first[i] - 1) // 2 if factor == 2 else first[i] // factor
        position = max(min(position, high - count), low)
        quarters[:] = 0
        for k in range(taps):
            pixel, weight = first[i] + k, np.int64(weights[i, k])
            if bicubic:
                weight = np.int64(np.int16(weight))
            if weight == 0:  # it may need a sample outside the decoded window
                continue
            near = pixel // factor
            far = near - 1 + 2 * (pixel & 1) if factor == 2 and fancy else near
            quarters[min(max(near, low), high - 1) - position] += 3 * weight
            quarters[min(max(far, low), high - 1) - position] += weight
        rest, largest = SIGNED_ONE if bicubic else WEIGHT_ONE, 0
        for k in range(count):
            weight = (quarters[k] + 2) >> 2
            sample_weights[i, k] = weight
            rest -= weight
            if quarters[k] > quarters[largest]:
                largest = k
        sample_weights[i, largest] += rest
        first_sample[i] = position
    return first_sample, sample_weights


@kernel
def resample_strip(
    planes: np.ndarray,
    start: int,
    stride: int,
    first_y: np.ndarray,
    weights_y: np.ndarray,
    first_x: np.ndarray,
    weights_x: np.ndarray,
    signed: bool,
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """Resizes one plane to at most 32 rows of output. Kernels take arrays instead of objects: many parameters.

    Strips keep everything between source and output in the first two caches: at 224 px, whole planes took 1.5 times
    as long.

    Args:
        planes: uint8, contiguous, with the plane, readable 32 bytes past its last row.
        start: position in `planes` of row 0 and column 0 in the coordinates of the taps; may be negative.
        stride: bytes from row to row.
        first_y, weights_y: taps over rows, at most 32.
        first_x, weights_x: taps over columns.
        signed: the weights are int16 (bicubic).
        scratch: uint16, contiguous, at least `scratch_size`.
        out: uint16 (32, M), 8.8 fixed point, contiguous, M a multiple of 32 and at least the output columns.
    """
    low, used = _used_columns(first_x, weights_x)
    size = GROUP * used
    summed, turned = scratch[:size].reshape(GROUP, used), scratch[size : 2 * size].reshape(used, GROUP)
    resized = scratch[2 * size : 2 * size + out.size].reshape(out.shape[1], GROUP)
    sum_rows_of_bytes(planes, start + low, stride, first_y, weights_y, signed, summed)
    transpose(summed, turned)
    sum_rows_of_words(turned, low, first_x, weights_x, signed, resized)
    transpose(resized, out)


@kernel
def _used_columns(first_x: np.ndarray, weights_x: np.ndarray) -> tuple[int, int]:
    """The first source column that is used, and the number of used columns in whole groups."""
    last = first_x.size - 1
    low, high = min(first_x[0], first_x[last]), max(first_x[0], first_x[last]) + weights_x.shape[1]
    return low, whole_groups(high - low)


@kernel
def scratch_size(first_x: np.ndarray, weights_x: np.ndarray) -> int:
    """Elements of scratch that `resample_strip` needs."""
    return GROUP * (2 * _used_columns(first_x, weights_x)[1] + whole_groups(first_x.size))


@shared_kernel
def planes_to_crop(
    planes: np.ndarray,
    starts: np.ndarray,
    strides: np.ndarray,
    window: np.ndarray,
    factors: tuple[int, int],
    gray: bool,
    box: np.ndarray,
    bounds: np.ndarray,
    flip: bool,
    bicubic: bool,
    out: np.ndarray,
) -> None:
    """Resamples decoded planes to the output and converts colors.

    Kernels take arrays instead of objects: many parameters.

    Args:
        planes: uint8, the three planes.
        starts: int64 (3,), where each begins.
        strides: int32 (3,), bytes from row to row.
        window: int64 (4,): y, x, height, width of the decoded pixels on their level.
        factors: rows and columns of pixels per chroma sample.
        gray: only the first plane is used.
        box: float64 (4,): y, x, h, w on the level.
        bounds: int64 (4,): the pixels [y low, y high) and [x low, x high) that may be used, inside `window`.
        flip: mirror left and right.
        bicubic: resize with the cubic filter, else with the triangle.
        out: uint8 (r, r, 3), contiguous.
    """
    resolution, (factor_y, factor_x) = out.shape[0], factors
    first_y, weights_y = luma_taps(box[0], box[2], bounds[0], bounds[1], resolution, np.bool_(False), bicubic)
    first_x, weights_x = luma_taps(box[1], box[3], bounds[2], bounds[3], resolution, flip, bicubic)
    y_low, x_low = window[0] // factor_y, window[1] // factor_x
    y_high = (window[0] + window[2] + factor_y - 1) // factor_y
    x_high = (window[1] + window[3] + factor_x - 1) // factor_x
    fancy = factor_x != 2 or window[1] + window[3] > MAX_PLAIN_WIDTH
    chroma_first_y, chroma_weights_y = chroma_taps(first_y, weights_y, factor_y, y_low, y_high, fancy, bicubic)
    chroma_first_x, chroma_weights_x = chroma_taps(first_x, weights_x, factor_x, x_low, x_high, fancy, bicubic)
    luma_start = starts[0] - window[0] * strides[0] - window[1]
    chroma_start = -y_low * strides[1] - x_low
    strips = np.empty((3, GROUP, whole_groups(resolution)), np.uint16)
    scratch = np.empty(scratch_size(first_x, weights_x), np.uint16)
    strips[1:] = 128 << 8
    for row in range(0, resolution, GROUP):
        end = min(row + GROUP, resolution)
        rows, weights = first_y[row:end], weights_y[row:end]
        resample_strip(planes, luma_start, strides[0], rows, weights, first_x, weights_x, bicubic, scratch, strips[0])
        rows, weights = chroma_first_y[row:end], chroma_weights_y[row:end]
        for k in range(1, 1 if gray else 3):
            start = starts[k] + chroma_start
            taps_x = chroma_first_x, chroma_weights_x
            resample_strip(planes, start, strides[k], rows, weights, *taps_x, bicubic, scratch, strips[k])
        ycc_to_rgb(strips[0], strips[1], strips[2], out[row:end])
