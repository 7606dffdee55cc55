"""RGB to the samples that a JPEG encoder transforms, one row of MCUs at a time, as libjpeg makes them, to the bit.

Written as vector instructions: LLVM makes 0.3 to 0.6 ms of the plain loops for 441 x 369 pixels, 0.17 of these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipelines.roc.decoder.vectors import BYTES, INT16, INT32, LANES, constant, load_three, order, pointer
from pipelines.runtime.numba_cache import kernel

_CHROMA_ZERO = (128 << 16) + (1 << 15) - 1


@kernel
def fill_strip(
    image: np.ndarray, width: int, first: int, rows: int, columns: int, chroma: np.ndarray, strip: np.ndarray
) -> None:
    """YCbCr samples of the MCUs that begin in one row.

    To the right of the image its last pixel is repeated, below it the last row of samples of each component.

    Args:
        image: uint8 (H * W * 3,) RGB, row by row.
        width: W.
        first: row of the image, a multiple of 8 * rows.
        rows, columns: luma blocks of an MCU, 1 or 2 each, rows not above columns; chroma has one block.
        chroma: uint8 (4 * S,), room for two rows of each chroma. S is the width to whole MCUs.
        strip: uint8 (3 * 8 * rows * S,), filled: of each component 8 * rows rows of S samples. Of chroma the first 8
            rows are filled, and their first S / columns columns.
    """
    height, size = image.size // (3 * width), chroma.size // 4
    for y in range(0, 8 * rows, rows):
        if first + y >= height:
            _repeat(strip, y, rows, size)
            continue
        for k in range(rows):
            start = min(first + y + k, height - 1) * 3 * width
            _convert_row(image, start, width, strip, (y + k) * size, chroma, k * size, size)
        for c in range(2):
            source, target = 2 * c * size, ((1 + c) * 8 * rows + y // rows) * size
            if columns == 1:
                strip[target : target + size] = chroma[source : source + size]
            elif rows == 1:
                for x in range(0, size // 2, LANES):
                    _mean_of_two(chroma, source + 2 * x, size, strip, target + x)
            else:
                for x in range(0, size // 2, LANES):
                    _mean_of_four(chroma, source + 2 * x, size, strip, target + x)


@kernel
def _convert_row(
    image: np.ndarray,
    start: int,
    width: int,
    luma: np.ndarray,
    y: int,
    chroma: np.ndarray,
    blue: int,
    size: int,
) -> None:
    """A row of `width` pixels from image[start] on to `size` of luma[y], chroma[blue] and red two rows below."""
    whole, red = width // LANES * LANES, blue + 2 * size
    for x in range(0, whole, LANES):
        _convert(image, start + 3 * x, luma, y + x, chroma, blue + x, red + x)
    if whole == size:
        return
    rest = np.empty(3 * LANES, np.uint8)
    for x in range(whole, size, LANES):
        for k in range(LANES):
            at = start + 3 * min(x + k, width - 1)
            for c in range(3):
                rest[3 * k + c] = image[at + c]
        _convert(rest, 0, luma, y + x, chroma, blue + x, red + x)


@kernel
def _repeat(strip: np.ndarray, y: int, rows: int, size: int) -> None:
    """Fills `rows` rows of luma from row `y` on, and their row of chroma, with what stands above."""
    above = strip[(y - 1) * size : y * size]
    for k in range(rows):
        strip[(y + k) * size : (y + k + 1) * size] = above
    for c in range(1, 3):
        at = (c * 8 * rows + y // rows) * size
        strip[at : at + size] = strip[at - size : at]


@intrinsic
def _convert(typingctx, pixels, at, luma, y, chroma, blue, red):  # noqa: ARG001 (numba's signature)
    """Eight pixels of RGB from pixels[at] on to YCbCr (JFIF) at luma[y], chroma[blue] and chroma[red].

    All uint8 and contiguous; nothing is checked. In integers with 16 fractional bits; the weight of green in luma is
    halved and the product doubled, so that all factors have 15 bits and LLVM takes 16-bit multiplications.
    """

    def codegen(context, builder, signature, args):
        kinds = signature.args
        first, second = load_three(context, builder, kinds[0], args[0], args[1], BYTES)
        every_third = (order([3 * k + c for k in range(LANES)]) for c in range(3))
        colors = (builder.shuffle_vector(first, second, chosen) for chosen in every_third)
        red, green, blue = (builder.zext(color, INT32) for color in colors)
        luma = _weighted(builder, [(19595, red), (19235, green), (19235, green), (7471, blue)], 1 << 15)
        cb = _weighted(builder, [(-11059, red), (-21709, green), (1 << 15, blue)], _CHROMA_ZERO)
        cr = _weighted(builder, [(1 << 15, red), (-27439, green), (-5329, blue)], _CHROMA_ZERO)
        for value, array, index in ((luma, 2, 3), (cb, 4, 5), (cr, 4, 6)):
            builder.store(value, pointer(context, builder, kinds[array], args[array], args[index], BYTES), align=1)
        return context.get_dummy_value()

    return types.void(pixels, types.intp, luma, types.intp, chroma, types.intp, types.intp), codegen


def _weighted(builder: ir.IRBuilder, terms: list[tuple[int, ir.Value]], rounding: int) -> ir.Value:
    total = constant(rounding)
    for weight, value in terms:
        if weight == 1 << 15:
            total = builder.add(total, builder.shl(value, constant(15)))
            continue
        product = builder.mul(value, constant(abs(weight)))
        total = builder.add(total, product) if weight > 0 else builder.sub(total, product)
    return builder.trunc(builder.lshr(total, constant(16)), BYTES)


def _mean(num_rows: int) -> Callable[..., Any]:
    """Makes what averages two columns of one or two rows, rounding down and up in turns from column to column."""

    @intrinsic
    def mean(typingctx, source, at, stride, target, to):  # noqa: ARG001 (numba's signature)
        """target[to : to + 8] = means of source[at : at + 16] in pairs, and of the row behind; nothing is checked."""

        def codegen(context, builder, signature, args):
            wide = ir.VectorType(ir.IntType(8), 2 * LANES)
            total = ir.Constant(INT16, [num_rows - 1, num_rows] * (LANES // 2))
            for row in range(num_rows):
                index = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, row)))
                place = pointer(context, builder, signature.args[0], args[0], index, wide)
                samples = builder.load(place, align=1)
                for odd in range(2):
                    half = builder.shuffle_vector(samples, samples, order([2 * k + odd for k in range(LANES)]))
                    total = builder.add(total, builder.zext(half, INT16))
            value = builder.trunc(builder.lshr(total, ir.Constant(INT16, [num_rows] * LANES)), BYTES)
            builder.store(value, pointer(context, builder, signature.args[3], args[3], args[4], BYTES), align=1)
            return context.get_dummy_value()

        return types.void(source, types.intp, types.intp, target, types.intp), codegen

    return mean


_mean_of_two, _mean_of_four = _mean(1), _mean(2)
