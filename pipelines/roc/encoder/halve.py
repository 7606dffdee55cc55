"""Halves an image's sides by Lanczos' filter, as Pillow does, in a fifth of the time.

At a factor of exactly two the twelve weights are the same for every pixel. Rows are combined first, as they lie. Then
even and odd pixels are put apart, so that columns are combined in contiguous memory, too.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipelines.roc.decoder.vectors import BYTES, FLOATS, INT32, LANES, floats, load_three, order, pointer
from pipelines.runtime.numba_cache import kernel

_TAPS = 12
_DISTANCES = (np.arange(_TAPS) - (_TAPS - 1) / 2) / 2  # of source pixels from the output pixel, in output pixels
_LANCZOS = np.sinc(_DISTANCES) * np.sinc(_DISTANCES / 3)
_WEIGHTS = (_LANCZOS / _LANCZOS.sum()).astype(np.float32)
_PAIRS = 4
_REACH = _TAPS // 4  # pairs of pixels that an output pixel needs on either side of its own
_BEFORE = _TAPS // 2 - 1  # taps before the first of the two pixels that an output pixel covers


@kernel
def halve(image: np.ndarray) -> np.ndarray:
    """Half the pixels a side, rounded up; output pixel i covers pixels 2 i and 2 i + 1. Borders are repeated.

    Why Lanczos: over 120 photographs the crops resampled from the half level, coded and decoded, come within 38.0 dB of
    those of the full level at 128 px; with bicubic 37.8, Hamming 37.0, means of squares 36.9, triangle 36.3.

    Args:
        image: uint8 (H, W, 3), contiguous.

    Returns:
        uint8 (ceil(H / 2), ceil(W / 2), 3).
    """
    height, width = image.shape[0], image.shape[1]
    rows, columns = (height + 1) // 2, (width + 1) // 2
    out = np.empty(rows * columns * 3 + LANES, np.uint8)
    total, margin = np.empty(width * 3, np.float32), 3 * _REACH
    room = columns * 3 + 2 * margin + LANES
    even, odd, places = np.empty(room, np.float32), np.empty(room, np.float32), np.empty(_TAPS, np.int64)
    pixels = image.reshape(image.size)
    for y in range(rows):
        for k in range(_TAPS):
            places[k] = min(max(2 * y + k - _BEFORE, 0), height - 1) * width * 3
        _combine_rows(pixels, places, total)
        _put_apart(total, width, even, odd, margin)
        for i in range(0, columns * 3, LANES):  # what a last vector writes too far, the next row replaces
            _combine_columns(even, odd, margin + i, out, y * columns * 3 + i)
    return out[: rows * columns * 3].reshape(rows, columns, 3)


@kernel
def _combine_rows(pixels: np.ndarray, places: np.ndarray, total: np.ndarray) -> None:
    """total[i] = sum over k of the weights times pixels[places[k] + i]."""
    size = total.size
    if size < LANES:
        for i in range(size):
            total[i] = 0
            for k in range(_TAPS):
                total[i] += _WEIGHTS[k] * np.float32(pixels[places[k] + i])
        return
    for i in range(0, size, LANES):
        _combine_eight(pixels, places, min(i, size - LANES), total)


@intrinsic
def _combine_eight(typingctx, pixels, places, at, total):  # noqa: ARG001 (numba's signature)
    """`_combine_rows` for total[at : at + 8]; nothing is checked. The weights are symmetric: rows are added first."""

    def codegen(context, builder, signature, args):
        def place(number: int, index: ir.Value, kind: ir.Type) -> ir.Value:
            return pointer(context, builder, signature.args[number], args[number], index, kind)

        at, word = args[2], args[2].type
        rows = []
        for k in range(_TAPS):
            row = builder.add(builder.load(place(1, ir.Constant(word, k), word)), at)
            rows.append(builder.load(place(0, row, BYTES), align=1))
        sums = None
        for k in range(_TAPS // 2):
            pair = builder.add(builder.zext(rows[k], INT32), builder.zext(rows[_TAPS - 1 - k], INT32))
            product = builder.fmul(builder.sitofp(pair, FLOATS), floats(float(_WEIGHTS[k])))
            sums = product if sums is None else builder.fadd(sums, product)
        builder.store(sums, place(3, at, FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(pixels, places, types.intp, total), codegen


@kernel
def _put_apart(row: np.ndarray, width: int, even: np.ndarray, odd: np.ndarray, margin: int) -> None:
    """Even and odd pixels of a row of RGB, with its first and last pixel repeated on both sides."""
    columns = (width + 1) // 2
    whole = width // 2 // _PAIRS * _PAIRS
    for x in range(0, whole, _PAIRS):
        _split_pairs(row, 6 * x, even, odd, margin + 3 * x)
    for x in range(whole, columns):
        for c in range(3):
            even[margin + 3 * x + c] = row[6 * x + c]
    for x in range(whole, width // 2):
        for c in range(3):
            odd[margin + 3 * x + c] = row[6 * x + 3 + c]
    for x in range(_REACH):
        for c in range(3):
            even[3 * x + c] = odd[3 * x + c] = row[c]
    for c in range(3):
        last = row[3 * width - 3 + c]
        for x in range(columns, columns + _REACH):
            even[margin + 3 * x + c] = last
        for x in range(width // 2, columns + _REACH):
            odd[margin + 3 * x + c] = last


@intrinsic
def _split_pairs(typingctx, row, at, even, odd, to):  # noqa: ARG001 (numba's signature)
    """Four pairs of RGB pixels from row[at] on: the first ones to even[to], the second ones to odd[to]. Unchecked."""

    def codegen(context, builder, signature, args):
        first, second = load_three(context, builder, signature.args[0], args[0], args[1], FLOATS)
        for which, number in enumerate((2, 3)):
            chosen = [6 * pair + 3 * which + c for pair in range(_PAIRS) for c in range(3)]
            value = builder.shuffle_vector(first, second, order(chosen))
            place = pointer(context, builder, signature.args[number], args[number], args[4], value.type)
            builder.store(value, place, align=4)
        return context.get_dummy_value()

    return types.void(row, types.intp, even, odd, types.intp), codegen


@intrinsic
def _combine_columns(typingctx, even, odd, at, out, to):  # noqa: ARG001 (numba's signature)
    """Eight output samples, rounded and clamped, from the pixels around even[at] and odd[at]. Nothing is checked.

    Tap k of output pixel x falls on pixel 2 x + k - 5: for even k the odd one of pair x + (k - 6) / 2, for odd k the
    even one of pair x + (k - 5) / 2.
    """

    def codegen(context, builder, signature, args):
        def load(tap: int) -> ir.Value:
            number, pair = (1, (tap - _BEFORE - 1) // 2) if tap % 2 == 0 else (0, (tap - _BEFORE) // 2)
            index = builder.add(args[2], ir.Constant(args[2].type, 3 * pair))
            place = pointer(context, builder, signature.args[number], args[number], index, FLOATS)
            return builder.load(place, align=4)

        sums = floats(0.5)  # rounds
        for k in range(_TAPS // 2):
            pair = builder.fadd(load(k), load(_TAPS - 1 - k))
            sums = builder.fadd(sums, builder.fmul(pair, floats(float(_WEIGHTS[k]))))
        for bound, comparison in ((0.0, "<"), (255.0, ">")):
            limit = floats(bound)
            sums = builder.select(builder.fcmp_ordered(comparison, sums, limit), limit, sums)
        value = builder.trunc(builder.fptosi(sums, INT32), BYTES)
        builder.store(value, pointer(context, builder, signature.args[3], args[3], args[4], BYTES), align=1)
        return context.get_dummy_value()

    return types.void(even, odd, types.intp, out, types.intp), codegen
