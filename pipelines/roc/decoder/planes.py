"""From decoded YCbCr planes to the finished crop: resample each plane as it is stored, convert colors last.

Chroma is never brought to full size. Its weights are those of upsampling and resizing combined, so each output pixel
is what libjpeg's own (fancy) upsampling followed by the resize would give, and colors are converted on output pixels
only.
"""

from __future__ import annotations

import math

import numpy as np

from pipelines.images.resampling import WEIGHT_ONE, fill_taps, num_taps
from pipelines.roc.decoder.color import ycc_to_rgb
from pipelines.roc.decoder.transpose import transpose
from pipelines.roc.decoder.weighted_rows import GROUP, combine_bytes, combine_words, whole_groups
from pipelines.roc.layout import MAX_PLAIN_WIDTH
from pipelines.runtime.numba_cache import kernel


@kernel
def used_range(start: float, length: float, extent: int, resolution: int, inside: bool) -> tuple[int, int]:
    """The pixels [low, high) of an axis that a box's output depends on.

    Args:
        start, length: the box.
        extent: pixels of the image along the axis.
        resolution: output pixels.
        inside: use no pixel outside the box (`pipelines.images.resampling.resize_box`).
    """
    if inside:
        low, high = math.floor(start), math.ceil(start + length)
    else:
        step = length / resolution
        reach = max(step, 1.0) - 0.5 * step
        low, high = math.floor(start - reach + 0.5), math.floor(start + length + reach + 0.5)
    low = min(max(low, 0), extent - 1)
    return low, max(min(high, extent), low + 1)


@kernel
def luma_taps(
    start: float, length: float, low: int, high: int, resolution: int, flip: bool
) -> tuple[np.ndarray, np.ndarray]:
    """First pixel, int32 (r,), and weights, uint16 (r, taps), of each output pixel along one axis."""
    first = np.empty(resolution, np.int32)
    weights = np.empty((resolution, num_taps(length, resolution, low, high)), np.uint16)
    fill_taps(start, length, low, high, flip, first, weights)
    return first, weights


@kernel
def chroma_taps(
    first: np.ndarray, weights: np.ndarray, factor: int, low: int, high: int, fancy: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The weights of chroma samples that make the same output pixels as `weights` of pixels do.

    A pixel takes 3/4 of its chroma sample and 1/4 of the next nearest one (libjpeg's fancy upsampling) if two pixels
    share a sample, and all of its sample if four do.

    Args:
        first, weights: from `luma_taps`.
        factor: pixels that share one chroma sample along this axis: 1, 2 or 4.
        low, high: the chroma samples [low, high) there are; those beyond repeat the outermost.
        fancy: False lets two pixels take all of their sample as well.

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
            if weight == 0:  # such a tap may need a sample that the cut does not have
                continue
            near = pixel // factor
            far = near - 1 + 2 * (pixel & 1) if factor == 2 and fancy else near
            quarters[min(max(near, low), high - 1) - position] += 3 * weight
            quarters[min(max(far, low), high - 1) - position] += weight
        rest, largest = WEIGHT_ONE, 0
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
    scratch: np.ndarray,
    out: np.ndarray,
) -> None:
    """Resizes one plane to at most 32 rows of output.

    In strips, so that everything between source and output stays in the first two caches: at 224 px, whole planes
    took 1.5 times as long.

    Args:
        planes: uint8, contiguous, that holds the plane, readable 32 bytes past its last row.
        start: where row 0 and column 0 would lie in `planes`, in the coordinates of the taps; may be negative.
        stride: bytes from row to row.
        first_y, weights_y: taps over rows, at most 32.
        first_x, weights_x: taps over columns.
        scratch: uint16, contiguous, at least `scratch_size`.
        out: uint16 (32, M), 8.8 fixed point, contiguous, M a multiple of 32 and at least the output columns.
    """
    low, used = _used_columns(first_x, weights_x)
    size = GROUP * used
    combined, turned = scratch[:size].reshape(GROUP, used), scratch[size : 2 * size].reshape(used, GROUP)
    resized = scratch[2 * size : 2 * size + out.size].reshape(out.shape[1], GROUP)
    combine_bytes(planes, start + low, stride, first_y, weights_y, combined)
    transpose(combined, turned)
    combine_words(turned, low, first_x, weights_x, resized)
    transpose(resized, out)


@kernel
def _used_columns(first_x: np.ndarray, weights_x: np.ndarray) -> tuple[int, int]:
    """The first source column that is used, and how many, in whole groups."""
    last = first_x.size - 1
    low, high = min(first_x[0], first_x[last]), max(first_x[0], first_x[last]) + weights_x.shape[1]
    return low, whole_groups(high - low)


@kernel
def scratch_size(first_x: np.ndarray, weights_x: np.ndarray) -> int:
    """Elements of scratch that `resample_strip` needs."""
    return GROUP * (2 * _used_columns(first_x, weights_x)[1] + whole_groups(first_x.size))


@kernel
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
    out: np.ndarray,
) -> None:
    """Resamples decoded planes to the output and converts colors.

    Args:
        planes: uint8, the three planes.
        starts: int64 (3,), where each begins.
        strides: int32 (3,), bytes from row to row.
        window: int64 (4,): y, x, height, width of the decoded pixels on their level.
        factors: rows and columns of pixels to a chroma sample.
        gray: there is only the first plane.
        box: float64 (4,): y, x, h, w on the level.
        bounds: int64 (4,): the pixels [y low, y high) and [x low, x high) that may be used, inside `window`.
        flip: mirror left and right.
        out: uint8 (r, r, 3), contiguous.
    """
    resolution, (factor_y, factor_x) = out.shape[0], factors
    first_y, weights_y = luma_taps(box[0], box[2], bounds[0], bounds[1], resolution, np.bool_(False))
    first_x, weights_x = luma_taps(box[1], box[3], bounds[2], bounds[3], resolution, flip)
    y_low, x_low = window[0] // factor_y, window[1] // factor_x
    y_high = (window[0] + window[2] + factor_y - 1) // factor_y
    x_high = (window[1] + window[3] + factor_x - 1) // factor_x
    fancy = factor_x != 2 or window[1] + window[3] > MAX_PLAIN_WIDTH
    chroma_first_y, chroma_weights_y = chroma_taps(first_y, weights_y, factor_y, y_low, y_high, fancy)
    chroma_first_x, chroma_weights_x = chroma_taps(first_x, weights_x, factor_x, x_low, x_high, fancy)
    luma_start = starts[0] - window[0] * strides[0] - window[1]
    chroma_start = -y_low * strides[1] - x_low
    strips = np.empty((3, GROUP, whole_groups(resolution)), np.uint16)
    scratch = np.empty(scratch_size(first_x, weights_x), np.uint16)
    strips[1:] = 128 << 8
    for row in range(0, resolution, GROUP):
        end = min(row + GROUP, resolution)
        rows, weights = first_y[row:end], weights_y[row:end]
        resample_strip(planes, luma_start, strides[0], rows, weights, first_x, weights_x, scratch, strips[0])
        rows, weights = chroma_first_y[row:end], chroma_weights_y[row:end]
        for k in range(1, 1 if gray else 3):
            start = starts[k] + chroma_start
            resample_strip(
                planes, start, strides[k], rows, weights, chroma_first_x, chroma_weights_x, scratch, strips[k]
            )
        ycc_to_rgb(strips[0], strips[1], strips[2], out[row:end])
