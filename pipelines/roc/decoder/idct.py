"""The inverse DCT of libjpeg's accurate integer method ("islow"), equal to the bit, eight columns at a time.

Loeffler, Ligtenberg and Moschytz 1989, in 32-bit integers with 13 fractional bits: the default of every libjpeg. It is
written as vector instructions because LLVM does not vectorize loops over 64 numbers.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fixres.pipelines.roc.decoder.transpose import transposed
from fixres.pipelines.roc.decoder.vectors import address, splat, vector

_BYTES, _INT16, _INT32 = (vector(bits, 8) for bits in (8, 16, 32))
_FRACTION = 13  # fractional bits of the factors
_EXTRA = 2  # fractional bits that the first of the two passes keeps


def _constant(value: int) -> ir.Constant:
    return splat(_INT32, value)


def _fixed(value: float) -> ir.Constant:
    return _constant(round(value * (1 << _FRACTION)))


def _pass(builder: ir.IRBuilder, x: list[ir.Value], shift: int) -> list[ir.Value]:
    """One dimension: x[k] holds frequency k of eight columns; the result holds sample k, rounded to x / 2**shift."""
    add, sub, mul = builder.add, builder.sub, builder.mul

    z1 = mul(add(x[2], x[6]), _fixed(0.541196100))
    low, high = sub(z1, mul(x[6], _fixed(1.847759065))), add(z1, mul(x[2], _fixed(0.765366865)))
    rounding = _constant(1 << (shift - 1))
    scale = _constant(_FRACTION)
    total = add(builder.shl(add(x[0], x[4]), scale), rounding)
    difference = add(builder.shl(sub(x[0], x[4]), scale), rounding)
    even = [add(total, high), add(difference, low), sub(difference, low), sub(total, high)]

    z3, z4 = add(x[7], x[3]), add(x[5], x[1])
    z5 = mul(add(z3, z4), _fixed(1.175875602))
    z1, z2 = mul(add(x[7], x[1]), _fixed(-0.899976223)), mul(add(x[5], x[3]), _fixed(-2.562915447))
    z3, z4 = add(mul(z3, _fixed(-1.961570560)), z5), add(mul(z4, _fixed(-0.390180644)), z5)
    odd = [
        add(mul(x[1], _fixed(1.501321110)), add(z1, z4)),
        add(mul(x[3], _fixed(3.072711026)), add(z2, z3)),
        add(mul(x[5], _fixed(2.053119869)), add(z2, z4)),
        add(mul(x[7], _fixed(0.298631336)), add(z1, z3)),
    ]
    sums = [add(e, o) for e, o in zip(even, odd, strict=True)]
    differences = [sub(e, o) for e, o in zip(even, odd, strict=True)]
    return [builder.ashr(value, _constant(shift)) for value in (*sums, *reversed(differences))]


def _to_bytes(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """int16 samples around 0 to bytes around 128, clipped."""
    low, high, middle = (splat(_INT16, number) for number in (-128, 127, 128))
    value = builder.select(builder.icmp_signed("<", value, low), low, value)
    value = builder.select(builder.icmp_signed(">", value, high), high, value)
    return builder.trunc(builder.add(value, middle), _BYTES)


@intrinsic
def idct_block(typingctx, block, plane, at, stride):  # noqa: ARG001 (numba's signature)
    """plane[at + y * stride + x] = sample (y, x) of a block of 64 dequantized coefficients. Bounds are not checked.

    Args:
        block: int32 (64,), contiguous, row major (horizontal frequency fastest). Set to zeros.
        plane: uint8, contiguous.
        at, stride: intp.
    """

    def codegen(context, builder, signature, args):
        def element(number: int, index: ir.Value, kind: ir.Type) -> ir.Value:
            return address(context, builder, signature.args[number], args[number], index, kind)

        at, stride = args[2], args[3]
        rows = [builder.load(element(0, ir.Constant(at.type, 8 * k), _INT32), align=4) for k in range(8)]
        for k in range(8):
            builder.store(_constant(0), element(0, ir.Constant(at.type, 8 * k), _INT32), align=4)
        columns = transposed(builder, _pass(builder, rows, _FRACTION - _EXTRA))
        columns = _pass(builder, columns, _FRACTION + _EXTRA + 3)
        # Valid data needs far fewer than 16 bits here. Invalid data may wrap around.
        rows = transposed(builder, [builder.trunc(column, _INT16) for column in columns])
        for k, row in enumerate(rows):
            index = builder.add(at, builder.mul(stride, ir.Constant(at.type, k)))
            builder.store(_to_bytes(builder, row), element(1, index, _BYTES), align=1)
        return context.get_dummy_value()

    return types.void(block, plane, types.intp, types.intp), codegen
