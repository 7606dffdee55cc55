"""Weighted sums of rows, thirty-two columns at a time: the inner loop of the resampler.

Sums stay in vector registers. With up to MAX_FAST_TAPS taps, products are truncated to 8.8 fixed point before they are
added, so that all arithmetic has 16 bits (one instruction multiplies 16 values and keeps the upper halves). This is
twice as fast as exact sums, with an error of at most 0.13 gray levels. More taps, which only very large images need,
are summed exactly. Reads and writes are made in whole groups, so sources must be readable and targets writable up to
the end of a group.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fixres.pipelines.roc.decoder.vectors import address, splat, vector
from fixres.pipelines.runtime.numba_cache import kernel

GROUP = 32
MAX_FAST_TAPS = 64

_BYTES, _WORDS, _WIDE = (vector(bits, GROUP) for bits in (8, 16, 32))


def _broadcast(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """A vector with `value` in all lanes."""
    undefined = ir.Constant(ir.VectorType(value.type, GROUP), ir.Undefined)
    single = builder.insert_element(undefined, value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(single, undefined, splat(_WIDE, 0))


def _add_fast(builder: ir.IRBuilder, total: ir.Value, values: ir.Value, weight: ir.Value) -> ir.Value:
    """16-bit total + values * weight / 2**16, where byte values count as 8.8 fixed point."""
    if values.type == _BYTES:
        values = builder.shl(builder.zext(values, _WORDS), splat(_WORDS, 8))
    wide, wide_weight = (builder.zext(part, _WIDE) for part in (values, _broadcast(builder, weight)))
    upper = builder.lshr(builder.mul(wide, wide_weight), splat(_WIDE, 16))
    return builder.add(total, builder.trunc(upper, _WORDS))


def _add_exact(builder: ir.IRBuilder, total: ir.Value, values: ir.Value, weight: ir.Value) -> ir.Value:
    """32-bit total + values * weight."""
    wide_weight = _broadcast(builder, builder.zext(weight, ir.IntType(32)))
    return builder.add(total, builder.mul(builder.zext(values, _WIDE), wide_weight))


def _sum_group(kind: ir.VectorType, fast: bool):
    """An intrinsic: out[at:] = sum over k < taps of weights[w + k] * source[start + k * stride:], 8.8 fixed point.

    Args:
        kind: of the source's groups, bytes or 8.8 fixed point.
        fast: with 16-bit arithmetic.
    """
    width = kind.element.width

    def code(context, builder, signature, args):
        def element(number: int, index: ir.Value, kind: ir.Type) -> ir.Value:
            return address(context, builder, signature.args[number], args[number], index, kind)

        _, start, stride, _, w, taps, _, at = args
        if fast:  # half a unit for each product that is truncated
            half = builder.trunc(builder.lshr(taps, ir.Constant(taps.type, 1)), ir.IntType(16))
            total = cgutils.alloca_once_value(builder, _broadcast(builder, half))
        else:
            total = cgutils.alloca_once_value(builder, splat(_WIDE, 1 << (width - 1)))
        add = _add_fast if fast else _add_exact
        with cgutils.for_range(builder, taps) as loop:
            index = builder.add(start, builder.mul(loop.index, stride))
            values = builder.load(element(0, index, kind), align=width // 8)
            weight = builder.load(element(3, builder.add(w, loop.index), ir.IntType(16)), align=2)
            builder.store(add(builder, builder.load(total), values, weight), total)
        words = builder.load(total)
        if not fast:
            words = builder.trunc(builder.lshr(words, splat(_WIDE, width)), _WORDS)
        builder.store(words, element(6, at, _WORDS), align=2)
        return context.get_dummy_value()

    def typed(typingctx, source, start, stride, weights, w, taps, out, at):  # noqa: ARG001 (numba's signature)
        """The signature of the loop; numba wants the parameters one by one, so there are many parameters."""
        number = types.intp
        return types.void(source, number, number, weights, number, number, out, number), code

    return intrinsic(typed)


_sum_bytes, _sum_bytes_exactly = _sum_group(_BYTES, True), _sum_group(_BYTES, False)
_sum_words, _sum_words_exactly = _sum_group(_WORDS, True), _sum_group(_WORDS, False)


@kernel
def whole_groups(side: int) -> int:
    """`side` rounded up to whole groups."""
    return (side + GROUP - 1) // GROUP * GROUP


@kernel
def sum_rows_of_bytes(
    source: np.ndarray, start: int, stride: int, first: np.ndarray, weights: np.ndarray, out: np.ndarray
) -> None:
    """out[i, x] = sum over k of weights[i, k] * source[start + (first[i] + k) * stride + x], as 8.8 fixed point.

    Args:
        source: uint8 (S,), contiguous.
        start: position of column 0 of row 0 in it.
        stride: bytes from row to row.
        first: int32 (n,), increasing or decreasing.
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
def sum_rows_of_words(source: np.ndarray, base: int, first: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    """out[i] = sum over k of weights[i, k] * source[first[i] + k - base], 8.8 fixed point in and out.

    Args:
        source: uint16 (H, 32), contiguous.
        base: the number of the row source[0].
        first: int32 (n,), increasing or decreasing.
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
