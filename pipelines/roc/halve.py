"""Halves an image's sides by Lanczos' filter, as Pillow does, in a fifth of the time.

At a factor of exactly two the twelve weights are the same for every pixel. Rows are combined first, as they lie. Then
even and odd pixels are put apart, so that columns are combined in contiguous memory, too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipelines.kernels import kernel

_TAPS = 12
_DISTANCES = (np.arange(_TAPS) - (_TAPS - 1) / 2) / 2  # of source pixels from the output pixel, in output pixels
_LANCZOS = np.sinc(_DISTANCES) * np.sinc(_DISTANCES / 3)
_WEIGHTS = (_LANCZOS / _LANCZOS.sum()).astype(np.float32)
_LANES, _PAIRS = 8, 4
_REACH = _TAPS // 4  # pairs of pixels that an output pixel needs on either side of its own
_BYTES, _INT32 = ir.VectorType(ir.IntType(8), _LANES), ir.VectorType(ir.IntType(32), _LANES)
_FLOAT = ir.VectorType(ir.FloatType(), _LANES)
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
    out = np.empty(rows * columns * 3 + _LANES, np.uint8)
    total, margin = np.empty(width * 3, np.float32), 3 * _REACH
    room = columns * 3 + 2 * margin + _LANES
    even, odd, places = np.empty(room, np.float32), np.empty(room, np.float32), np.empty(_TAPS, np.int64)
    pixels = image.reshape(image.size)
    for y in range(rows):
        for k in range(_TAPS):
            places[k] = min(max(2 * y + k - _BEFORE, 0), height - 1) * width * 3
        _combine_rows(pixels, places, total)
        _put_apart(total, width, even, odd, margin)
        for i in range(0, columns * 3, _LANES):  # what a last vector writes too far, the next row replaces
            _combine_columns(even, odd, margin + i, out, y * columns * 3 + i)
    return out[: rows * columns * 3].reshape(rows, columns, 3)


@kernel
def _combine_rows(pixels: np.ndarray, places: np.ndarray, total: np.ndarray) -> None:
    """total[i] = sum over k of the weights times pixels[places[k] + i]."""
    size = total.size
    if size < _LANES:
        for i in range(size):
            total[i] = 0
            for k in range(_TAPS):
                total[i] += _WEIGHTS[k] * np.float32(pixels[places[k] + i])
        return
    for i in range(0, size, _LANES):
        _combine_eight(pixels, places, min(i, size - _LANES), total)


@intrinsic
def _combine_eight(typingctx, pixels, places, at, total):  # noqa: ARG001 (numba's signature)
    """`_combine_rows` for total[at : at + 8]; nothing is checked. The weights are symmetric: rows are added first."""

    def codegen(context, builder, signature, args):
        def item(number: int, index: ir.Value) -> ir.Value:
            return _pointer(context, builder, signature.args[number], args[number], index)

        at, word = args[2], args[2].type
        rows = []
        for k in range(_TAPS):
            place = builder.add(builder.load(item(1, ir.Constant(word, k))), at)
            rows.append(builder.load(builder.bitcast(item(0, place), _BYTES.as_pointer()), align=1))
        sums = None
        for k in range(_TAPS // 2):
            pair = builder.add(builder.zext(rows[k], _INT32), builder.zext(rows[_TAPS - 1 - k], _INT32))
            weight = ir.Constant(_FLOAT, [float(_WEIGHTS[k])] * _LANES)
            product = builder.fmul(builder.sitofp(pair, _FLOAT), weight)
            sums = product if sums is None else builder.fadd(sums, product)
        builder.store(sums, builder.bitcast(item(3, at), _FLOAT.as_pointer()), align=4)
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
        parts = []
        for k in range(3):
            place = builder.add(args[1], ir.Constant(args[1].type, _LANES * k))
            pointer = _pointer(context, builder, signature.args[0], args[0], place)
            parts.append(builder.load(builder.bitcast(pointer, _FLOAT.as_pointer()), align=4))
        wide, order = ir.VectorType(ir.IntType(32), 2 * _LANES), ir.VectorType(ir.IntType(32), 3 * _PAIRS)
        both = ir.Constant(wide, list(range(2 * _LANES)))
        first = builder.shuffle_vector(parts[0], parts[1], both)
        second = builder.shuffle_vector(parts[2], parts[2], both)
        for which, number in enumerate((2, 3)):
            chosen = [6 * pair + 3 * which + c for pair in range(_PAIRS) for c in range(3)]
            value = builder.shuffle_vector(first, second, ir.Constant(order, chosen))
            pointer = _pointer(context, builder, signature.args[number], args[number], args[4])
            builder.store(value, builder.bitcast(pointer, value.type.as_pointer()), align=4)
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
            place = builder.add(args[2], ir.Constant(args[2].type, 3 * pair))
            pointer = _pointer(context, builder, signature.args[number], args[number], place)
            return builder.load(builder.bitcast(pointer, _FLOAT.as_pointer()), align=4)

        def constant(value: float) -> ir.Constant:
            return ir.Constant(_FLOAT, [value] * _LANES)

        sums = constant(0.5)  # rounds
        for k in range(_TAPS // 2):
            pair = builder.fadd(load(k), load(_TAPS - 1 - k))
            sums = builder.fadd(sums, builder.fmul(pair, constant(float(_WEIGHTS[k]))))
        for bound, comparison in ((0.0, "<"), (255.0, ">")):
            limit = constant(bound)
            sums = builder.select(builder.fcmp_ordered(comparison, sums, limit), limit, sums)
        value = builder.trunc(builder.fptosi(sums, _INT32), _BYTES)
        pointer = _pointer(context, builder, signature.args[3], args[3], args[4])
        builder.store(value, builder.bitcast(pointer, _BYTES.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(even, odd, types.intp, out, types.intp), codegen


def _pointer(context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, index: ir.Value) -> ir.Value:
    made = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, made, [index])
