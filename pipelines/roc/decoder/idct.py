"""The inverse DCT of libjpeg's accurate integer method ("islow"), all columns of a block at a time.

Loeffler, Ligtenberg and Moschytz 1989, in 32-bit integers with 13 fractional bits: the default of every libjpeg; equal
to the bit. It is written as vector instructions because LLVM does not vectorize loops over 64 numbers.

The transforms of 4, 2 and 1 points take the lowest frequencies only. They give the image at a half, a quarter or an
eighth of its sides, as scaled decoding in libjpeg 7 and later does. libjpeg-turbo takes averages, which are 2 dB worse.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fixres.pipelines.roc.decoder.transpose import transposed
from fixres.pipelines.roc.decoder.vectors import pointer, splat, vector

_SIDE = 8  # of a block
_FRACTION = 13  # fractional bits of the factors
_EXTRA = 2  # fractional bits that the first of the two passes keeps

_Pass = Callable[[ir.IRBuilder, list[ir.Value], int], list[ir.Value]]
"""One dimension: x[k] holds frequency k of all columns; the result holds sample k, rounded to x / 2**shift."""


def _times(builder: ir.IRBuilder, value: ir.Value, factor: float) -> ir.Value:
    return builder.mul(value, splat(value.type, round(factor * (1 << _FRACTION))))


def _sum_and_difference(
    builder: ir.IRBuilder, first: ir.Value, second: ir.Value, shift: int
) -> tuple[ir.Value, ir.Value]:
    """Of two frequencies, with the fractional bits of the factors and with half a unit for `_shifted`."""
    scale, rounding = splat(first.type, _FRACTION), splat(first.type, 1 << (shift - 1))
    total, difference = builder.add(first, second), builder.sub(first, second)
    return builder.add(builder.shl(total, scale), rounding), builder.add(builder.shl(difference, scale), rounding)


def _mirrored(builder: ir.IRBuilder, even: list[ir.Value], odd: list[ir.Value], shift: int) -> list[ir.Value]:
    """The first half of the samples is even + odd, the second half, from the last one on, even - odd."""
    sums = [builder.add(e, o) for e, o in zip(even, odd, strict=True)]
    differences = [builder.sub(e, o) for e, o in zip(even, odd, strict=True)]
    return [builder.ashr(value, splat(value.type, shift)) for value in (*sums, *reversed(differences))]


def _rotated(builder: ir.IRBuilder, first: ir.Value, second: ir.Value) -> tuple[ir.Value, ir.Value]:
    z1 = _times(builder, builder.add(first, second), 0.541196100)
    high = builder.add(z1, _times(builder, first, 0.765366865))
    return high, builder.sub(z1, _times(builder, second, 1.847759065))


def _pass_of_8(builder: ir.IRBuilder, x: list[ir.Value], shift: int) -> list[ir.Value]:
    add = builder.add
    high, low = _rotated(builder, x[2], x[6])
    total, difference = _sum_and_difference(builder, x[0], x[4], shift)
    even = [add(total, high), add(difference, low), builder.sub(difference, low), builder.sub(total, high)]

    z3, z4 = add(x[7], x[3]), add(x[5], x[1])
    z5 = _times(builder, add(z3, z4), 1.175875602)
    z1, z2 = _times(builder, add(x[7], x[1]), -0.899976223), _times(builder, add(x[5], x[3]), -2.562915447)
    z3, z4 = add(_times(builder, z3, -1.961570560), z5), add(_times(builder, z4, -0.390180644), z5)
    odd = [
        add(_times(builder, x[1], 1.501321110), add(z1, z4)),
        add(_times(builder, x[3], 3.072711026), add(z2, z3)),
        add(_times(builder, x[5], 2.053119869), add(z2, z4)),
        add(_times(builder, x[7], 0.298631336), add(z1, z3)),
    ]
    return _mirrored(builder, even, odd, shift)


def _pass_of_4(builder: ir.IRBuilder, x: list[ir.Value], shift: int) -> list[ir.Value]:
    even = list(_sum_and_difference(builder, x[0], x[2], shift))
    return _mirrored(builder, even, list(_rotated(builder, x[1], x[3])), shift)


def _pass_of_2(builder: ir.IRBuilder, x: list[ir.Value], shift: int) -> list[ir.Value]:
    return [builder.ashr(value, splat(value.type, shift)) for value in _sum_and_difference(builder, x[0], x[1], shift)]


def _pass_of_1(builder: ir.IRBuilder, x: list[ir.Value], shift: int) -> list[ir.Value]:
    nothing = splat(x[0].type, 0)
    return [builder.ashr(_sum_and_difference(builder, x[0], nothing, shift)[0], splat(x[0].type, shift))]


def _to_bytes(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """int16 samples around 0 to bytes around 128, clipped."""
    low, high, middle = (splat(value.type, number) for number in (-128, 127, 128))
    value = builder.select(builder.icmp_signed("<", value, low), low, value)
    value = builder.select(builder.icmp_signed(">", value, high), high, value)
    return builder.trunc(builder.add(value, middle), vector(8, value.type.count))


def _transform(side: int, one_dimension: _Pass):
    """An intrinsic: stores the samples of a block, uint8, (y, x) at address target + y * stride + x.

    The parameters of the intrinsic, int64:
        block: address of 64 coefficients, int16, row major (horizontal frequency fastest). They are set to zeros.
        dc: the first coefficient; the one in the block is not used.
        steps: address of their quantization steps, int32, in the same order.
        target, stride: see above.

    Args:
        side: rows and columns of samples.
        one_dimension: the transform of that many points.
    """
    words, wide = vector(16, side), vector(32, side)

    def codegen(context, builder, signature, args):  # noqa: ARG001 (numba's signature)
        block, dc, steps, target, stride = args
        rows = [builder.load(pointer(builder, block, words, 2 * _SIDE * k), align=2) for k in range(side)]
        rows = [builder.sext(row, wide) for row in rows]
        rows[0] = builder.insert_element(rows[0], builder.trunc(dc, ir.IntType(32)), ir.Constant(ir.IntType(32), 0))
        clear(builder, block)
        for k in range(side):
            rows[k] = builder.mul(rows[k], builder.load(pointer(builder, steps, wide, 4 * _SIDE * k), align=4))
        columns = transposed(builder, one_dimension(builder, rows, _FRACTION - _EXTRA))
        columns = one_dimension(builder, columns, _FRACTION + _EXTRA + 3)
        # Valid data needs far fewer than 16 bits here. Invalid data may wrap around.
        rows = transposed(builder, [builder.trunc(column, words) for column in columns])
        for row in rows:
            builder.store(_to_bytes(builder, row), pointer(builder, target, vector(8, side)), align=1)
            target = builder.add(target, stride)
        return context.get_dummy_value()

    def typed(typingctx, block, dc, steps, target, stride):  # noqa: ARG001 (numba's signature)
        return types.void(*[types.int64] * 5), codegen

    return intrinsic(typed)


def clear(builder: ir.IRBuilder, block: ir.Value) -> None:
    """Sets the coefficients of a block to zeros."""
    row = vector(16, _SIDE)
    for k in range(_SIDE):
        builder.store(splat(row, 0), pointer(builder, block, row, 2 * _SIDE * k), align=2)


@intrinsic
def clear_block(typingctx, block):  # noqa: ARG001 (numba's signature)
    """Sets 64 coefficients, int16, at an address to zeros."""

    def codegen(context, builder, signature, args):  # noqa: ARG001 (numba's signature)
        clear(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


idct_block = _transform(8, _pass_of_8)
idct_half = _transform(4, _pass_of_4)
idct_quarter = _transform(2, _pass_of_2)
idct_eighth = _transform(1, _pass_of_1)
