"""The inverse DCT of libjpeg's accurate integer method ("islow"), equal to the bit, eight columns at a time.

Loeffler, Ligtenberg and Moschytz 1989, in 32-bit integers with 13 fractional bits: the default of every libjpeg. It is
written as vector instructions because LLVM does not vectorize loops over 64 numbers.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fixres.pipelines.roc.decoder.transpose import transposed
from fixres.pipelines.roc.decoder.vectors import pointer, splat, vector

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
def idct_block(typingctx, block, dc, steps, target, stride):  # noqa: ARG001 (numba's signature)
    """Stores the samples of a block, uint8, sample (y, x) at address target + y * stride + x. Parameters are int64.

    Args:
        block: address of 64 coefficients, int16, row major (horizontal frequency fastest). They are set to zeros.
        dc: the first coefficient; the one in the block is not used.
        steps: address of their quantization steps, int32, in the same order.
        target, stride: see above.
    """

    def codegen(context, builder, signature, args):  # noqa: ARG001 (numba's signature)
        block, dc, steps, target, stride = args
        rows = [builder.load(pointer(builder, block, _INT16, 16 * k), align=2) for k in range(8)]
        rows = [builder.sext(row, _INT32) for row in rows]
        rows[0] = builder.insert_element(rows[0], builder.trunc(dc, ir.IntType(32)), ir.Constant(ir.IntType(32), 0))
        for k in range(8):
            builder.store(splat(_INT16, 0), pointer(builder, block, _INT16, 16 * k), align=2)
            rows[k] = builder.mul(rows[k], builder.load(pointer(builder, steps, _INT32, 32 * k), align=4))
        columns = transposed(builder, _pass(builder, rows, _FRACTION - _EXTRA))
        columns = _pass(builder, columns, _FRACTION + _EXTRA + 3)
        # Valid data needs far fewer than 16 bits here. Invalid data may wrap around.
        rows = transposed(builder, [builder.trunc(column, _INT16) for column in columns])
        for row in rows:
            builder.store(_to_bytes(builder, row), pointer(builder, target, _BYTES), align=1)
            target = builder.add(target, stride)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 5), codegen
