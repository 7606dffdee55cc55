"""Weighted sums of rows, thirty-two columns at a time: the inner loop of the resampler.

Sums stay in vector registers. With up to MAX_FAST_TAPS taps, products are truncated to 8.8 fixed point before they are
added, so that all arithmetic has 16 bits (one instruction multiplies 16 values and keeps the upper halves). This is
twice as fast as exact sums, with an error of at most 0.13 gray levels. More taps, which only very large images need,
are summed exactly. Reads and writes are made in whole groups, so sources must be readable and targets writable up to
the end of a group.

Signed weights, in units of 2**-14, multiply signed values: 128 is subtracted from gray levels, which changes a sum by
exactly 128, because the weights' sum is 1. Sums have 6 fractional bits and range over 512 gray levels; they are clipped
to [0, 256) after rows and after columns, as in Pillow. The error is at most taps / 128 gray levels.
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


def _centered(builder: ir.IRBuilder, values: ir.Value) -> ir.Value:
    """Bytes minus 128 in signed 8.8 fixed point; words are that already."""
    if values.type == _WORDS:
        return values
    return builder.shl(builder.zext(builder.xor(values, splat(_BYTES, 0x80)), _WORDS), splat(_WORDS, 8))


def _add_signed_fast(builder: ir.IRBuilder, total: ir.Value, values: ir.Value, weight: ir.Value) -> ir.Value:
    """16-bit total + values * weight / 2**16, all signed."""
    factors = _centered(builder, values), _broadcast(builder, weight)
    wide, wide_weight = (builder.sext(part, _WIDE) for part in factors)
    upper = builder.ashr(builder.mul(wide, wide_weight), splat(_WIDE, 16))
    return builder.add(total, builder.trunc(upper, _WORDS))


def _add_signed_exact(builder: ir.IRBuilder, total: ir.Value, values: ir.Value, weight: ir.Value) -> ir.Value:
    """32-bit total + values * weight, all signed."""
    wide_weight = _broadcast(builder, builder.sext(weight, ir.IntType(32)))
    return builder.add(total, builder.mul(builder.sext(_centered(builder, values), _WIDE), wide_weight))


def _clipped(builder: ir.IRBuilder, words: ir.Value, center: int) -> ir.Value:
    """Signed words with 6 fractional bits, clipped to [-128, 128), with 8 fractional bits; `center` is added."""
    for comparison, bound in (("<", -(128 << 6)), (">", (128 << 6) - 1)):
        limit = splat(_WORDS, bound)
        words = builder.select(builder.icmp_signed(comparison, words, limit), limit, words)
    return builder.xor(builder.shl(words, splat(_WORDS, 2)), splat(_WORDS, center))


def _sum_group(kind: ir.VectorType, fast: bool, signed: bool):
    """An intrinsic: out[at:] = sum over k < taps of weights[w + k] * source[start + k * stride:], 8.8 fixed point.

    Args:
        kind: of the source's groups, bytes or 8.8 fixed point.
        fast: with 16-bit arithmetic.
        signed: with signed weights; sums of bytes are centered then, as words are expected.
    """
    width = 16 if signed else kind.element.width
    adds = {(True, False): _add_fast, (False, False): _add_exact, (True, True): _add_signed_fast}
    add = adds.get((fast, signed), _add_signed_exact)

    def code(context, builder, signature, args):
        def element(number: int, index: ir.Value, kind: ir.Type) -> ir.Value:
            return address(context, builder, signature.args[number], args[number], index, kind)

        _, start, stride, _, w, taps, _, at = args
        if fast:  # half a unit for each product that is truncated
            half = builder.trunc(builder.lshr(taps, ir.Constant(taps.type, 1)), ir.IntType(16))
            total = cgutils.alloca_once_value(builder, _broadcast(builder, half))
        else:
            total = cgutils.alloca_once_value(builder, splat(_WIDE, 1 << (width - 1)))
        with cgutils.for_range(builder, taps) as loop:
            index = builder.add(start, builder.mul(loop.index, stride))
            values = builder.load(element(0, index, kind), align=kind.element.width // 8)
            weight = builder.load(element(3, builder.add(w, loop.index), ir.IntType(16)), align=2)
            builder.store(add(builder, builder.load(total), values, weight), total)
        words = builder.load(total)
        if not fast:
            words = builder.trunc(builder.lshr(words, splat(_WIDE, width)), _WORDS)
        if signed:
            words = _clipped(builder, words, 0 if kind == _BYTES else 1 << 15)
        builder.store(words, element(6, at, _WORDS), align=2)
        return context.get_dummy_value()

    def typed(typingctx, source, start, stride, weights, w, taps, out, at):  # noqa: ARG001 (numba's signature)
        """The signature of the loop; numba wants the parameters one by one, so there are many parameters."""
        number = types.intp
        return types.void(source, number, number, weights, number, number, out, number), code

    return intrinsic(typed)


_sum_bytes, _sum_bytes_exactly = _sum_group(_BYTES, True, False), _sum_group(_BYTES, False, False)
_sum_words, _sum_words_exactly = _sum_group(_WORDS, True, False), _sum_group(_WORDS, False, False)
_sum_bytes_signed, _sum_bytes_signed_exactly = _sum_group(_BYTES, True, True), _sum_group(_BYTES, False, True)
_sum_words_signed, _sum_words_signed_exactly = _sum_group(_WORDS, True, True), _sum_group(_WORDS, False, True)


@kernel
def whole_groups(side: int) -> int:
    """`side` rounded up to whole groups."""
    return (side + GROUP - 1) // GROUP * GROUP


@kernel
def sum_rows_of_bytes(
    source: np.ndarray, start: int, stride: int, first: np.ndarray, weights: np.ndarray, signed: bool, out: np.ndarray
) -> None:
    """out[i, x] = sum over k of weights[i, k] * source[start + (first[i] + k) * stride + x], as 8.8 fixed point.

    Args:
        source: uint8 (S,), contiguous.
        start: position of column 0 of row 0 in it.
        stride: bytes from row to row.
        first: int32 (n,), increasing or decreasing.
        weights: uint16 (n, taps), contiguous, rows that sum to 65535; int16 that sum to 2**14 if `signed`.
        signed: the sums, minus 128, are signed and clipped, for `sum_rows_of_words`.
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
            if signed and taps <= MAX_FAST_TAPS:
                _sum_bytes_signed(source, row + x, stride, flat_weights, i * taps, taps, flat, i * width + x)
            elif signed:
                _sum_bytes_signed_exactly(source, row + x, stride, flat_weights, i * taps, taps, flat, i * width + x)
            elif taps <= MAX_FAST_TAPS:
                _sum_bytes(source, row + x, stride, flat_weights, i * taps, taps, flat, i * width + x)
            else:
                _sum_bytes_exactly(source, row + x, stride, flat_weights, i * taps, taps, flat, i * width + x)


@kernel
def sum_rows_of_words(
    source: np.ndarray, base: int, first: np.ndarray, weights: np.ndarray, signed: bool, out: np.ndarray
) -> None:
    """out[i] = sum over k of weights[i, k] * source[first[i] + k - base], 8.8 fixed point in and out.

    Args:
        source: uint16 (H, 32), contiguous.
        base: the number of the row source[0].
        first: int32 (n,), increasing or decreasing.
        weights: uint16 (n, taps), contiguous; int16 if `signed`.
        signed: `source` holds signed numbers, gray levels minus 128; the sums are unsigned and clipped.
        out: uint16 (>= n, 32), contiguous.
    """
    num_out, taps = weights.shape
    low, high = min(first[0], first[num_out - 1]), max(first[0], first[num_out - 1]) + taps
    assert source.shape[1] == GROUP and out.shape[1] == GROUP and out.shape[0] >= num_out and taps >= 1
    assert low >= base and high - base <= source.shape[0]
    flat, flat_out, flat_weights = source.reshape(source.size), out.reshape(out.size), weights.reshape(weights.size)
    for i in range(num_out):
        row = (first[i] - base) * GROUP
        if signed and taps <= MAX_FAST_TAPS:
            _sum_words_signed(flat, row, GROUP, flat_weights, i * taps, taps, flat_out, i * GROUP)
        elif signed:
            _sum_words_signed_exactly(flat, row, GROUP, flat_weights, i * taps, taps, flat_out, i * GROUP)
        elif taps <= MAX_FAST_TAPS:
            _sum_words(flat, row, GROUP, flat_weights, i * taps, taps, flat_out, i * GROUP)
        else:
            _sum_words_exactly(flat, row, GROUP, flat_weights, i * taps, taps, flat_out, i * GROUP)
