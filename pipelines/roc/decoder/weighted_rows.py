"""Weighted sums of rows, thirty-two columns at a time: the inner loop of the resampler.

Sums stay in vector registers. Up to MAX_FAST_TAPS taps, products are cut to 8.8 fixed point before they are added, so
that all arithmetic has 16 bits (one instruction multiplies 16 values and keeps the upper halves): twice as fast as
exact sums, and at most 0.13 gray levels off. More taps, which only far too large images need, are summed exactly.
Reads and writes come in whole groups, so sources must be readable and targets writable up to a group's end.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from pipelines.runtime.numba_cache import kernel

GROUP = 32
MAX_FAST_TAPS = 64

_INT8, _INT16, _INT32 = ir.IntType(8), ir.IntType(16), ir.IntType(32)


def _vector(element: ir.IntType) -> ir.VectorType:
    return ir.VectorType(element, GROUP)


def _constant(element: ir.IntType, value: int) -> ir.Constant:
    return ir.Constant(_vector(element), [value] * GROUP)


def _splat(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    undefined = ir.Constant(_vector(value.type), ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(single, undefined, _constant(_INT32, 0))


def _add_fast(builder: ir.IRBuilder, total: ir.Value, values: ir.Value, weight: ir.Value) -> ir.Value:
    """16-bit total + values * weight / 2**16, where byte values count as 8.8 fixed point."""
    if values.type.element == _INT8:
        values = builder.shl(builder.zext(values, _vector(_INT16)), _constant(_INT16, 8))
    wide, wide_weight = (builder.zext(part, _vector(_INT32)) for part in (values, _splat(builder, weight)))
    upper = builder.lshr(builder.mul(wide, wide_weight), _constant(_INT32, 16))
    return builder.add(total, builder.trunc(upper, _vector(_INT16)))


def _add_exact(builder: ir.IRBuilder, total: ir.Value, values: ir.Value, weight: ir.Value) -> ir.Value:
    """32-bit total + values * weight."""
    wide_weight = _splat(builder, builder.zext(weight, _INT32))
    return builder.add(total, builder.mul(builder.zext(values, _vector(_INT32)), wide_weight))


def _sum_group(element: ir.IntType, fast: bool):
    """An intrinsic: out[at:] = sum over k < taps of weights[w + k] * source[start + k * stride:], 8.8 fixed point.

    Args:
        element: of the source, bytes or 8.8 fixed point.
        fast: with 16-bit arithmetic.
    """
    shift = 8 if element is _INT8 else 16

    def code(context, builder, signature, args):
        def pointer(number: int, index: ir.Value, vector: ir.Type | None) -> ir.Value:
            array = context.make_array(signature.args[number])(context, builder, args[number])
            item = cgutils.get_item_pointer(context, builder, signature.args[number], array, [index])
            return item if vector is None else builder.bitcast(item, vector.as_pointer())

        _, start, stride, _, w, taps, _, at = args
        if fast:  # half a unit for each product that is cut off
            half = builder.trunc(builder.lshr(taps, ir.Constant(taps.type, 1)), _INT16)
            total = cgutils.alloca_once_value(builder, _splat(builder, half))
        else:
            total = cgutils.alloca_once_value(builder, _constant(_INT32, 1 << (shift - 1)))
        add = _add_fast if fast else _add_exact
        with cgutils.for_range(builder, taps) as loop:
            index = builder.add(start, builder.mul(loop.index, stride))
            values = builder.load(pointer(0, index, _vector(element)), align=element.width // 8)
            weight = builder.load(pointer(3, builder.add(w, loop.index), None), align=2)
            builder.store(add(builder, builder.load(total), values, weight), total)
        words = builder.load(total)
        if not fast:
            words = builder.trunc(builder.lshr(words, _constant(_INT32, shift)), _vector(_INT16))
        builder.store(words, pointer(6, at, _vector(_INT16)), align=2)
        return context.get_dummy_value()

    def typed(typingctx, source, start, stride, weights, w, taps, out, at):  # noqa: ARG001 (numba's signature)
        number = types.intp
        return types.void(source, number, number, weights, number, number, out, number), code

    return intrinsic(typed)


_sum_bytes, _sum_bytes_exactly = _sum_group(_INT8, True), _sum_group(_INT8, False)
_sum_words, _sum_words_exactly = _sum_group(_INT16, True), _sum_group(_INT16, False)


@kernel
def whole_groups(side: int) -> int:
    """`side` rounded up to whole groups."""
    return (side + GROUP - 1) // GROUP * GROUP


@kernel
def combine_bytes(
    source: np.ndarray, start: int, stride: int, first: np.ndarray, weights: np.ndarray, out: np.ndarray
) -> None:
    """out[i, x] = sum over k of weights[i, k] * source[start + (first[i] + k) * stride + x], as 8.8 fixed point.

    Args:
        source: uint8 (S,), contiguous.
        start: where column 0 of row 0 would lie in it.
        stride: bytes from row to row.
        first: int32 (n,), rising or falling.
        weights: uint16 (n, taps), contiguous, rows that sum to 65535.
        out: uint16 (>= n, M), contiguous, M a multiple of 32.
    """
    num_out, taps = weights.shape
    low, high = min(first[0], first[num_out - 1]), max(first[0], first[num_out - 1]) + taps
    width = out.shape[1]
    assert width % GROUP == 0 and out.shape[0] >= num_out and taps >= 1 and stride >= 0
    assert start + low * stride >= 0 and start + (high - 1) * stride + width <= source.size
    flat, flat_weights = out.reshape(out.size), weights.reshape(weights.size)
    for i in range(num_out):
        row = start + first[i] * stride
        for x in range(0, width, GROUP):
            if taps <= MAX_FAST_TAPS:
                _sum_bytes(source, row + x, stride, flat_weights, i * taps, taps, flat, i * width + x)
            else:
                _sum_bytes_exactly(source, row + x, stride, flat_weights, i * taps, taps, flat, i * width + x)


@kernel
def combine_words(source: np.ndarray, base: int, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """out[i] = sum over k of weights[i, k] * source[first[i] + k - base], 8.8 fixed point in and out.

    Args:
        source: uint16 (H, 32), contiguous.
        base: the row that source[0] is.
        first: int32 (n,), rising or falling.
        weights: uint16 (n, taps), contiguous.
        out: uint16 (>= n, 32), contiguous.
    """
    num_out, taps = weights.shape
    low, high = min(first[0], first[num_out - 1]), max(first[0], first[num_out - 1]) + taps
    assert source.shape[1] == GROUP and out.shape[1] == GROUP and out.shape[0] >= num_out and taps >= 1
    assert low >= base and high - base <= source.shape[0]
    flat, flat_out, flat_weights = source.reshape(source.size), out.reshape(out.size), weights.reshape(weights.size)
    for i in range(num_out):
        row = (first[i] - base) * GROUP
        if taps <= MAX_FAST_TAPS:
            _sum_words(flat, row, GROUP, flat_weights, i * taps, taps, flat_out, i * GROUP)
        else:
            _sum_words_exactly(flat, row, GROUP, flat_weights, i * taps, taps, flat_out, i * GROUP)
