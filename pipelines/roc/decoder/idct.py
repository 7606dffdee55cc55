"""The inverse DCT of libjpeg's accurate integer method ("islow"), to the bit, eight columns at a time.

Loeffler, Ligtenberg and Moschytz 1989, in 32-bit integers with 13 fractional bits, as every libjpeg computes it unless
told to be sloppy. Written as vector instructions, since LLVM does not find them in loops over 64 numbers.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipelines.roc.decoder.transpose import shuffled
from pipelines.roc.decoder.vectors import BYTES, EXTRA, FRACTION, INT16, INT32, constant, fixed, pointer


def _pass(builder: ir.IRBuilder, x: list[ir.Value], shift: int) -> list[ir.Value]:
    """One dimension: x[k] holds frequency k of eight columns; the result holds sample k, rounded to x / 2**shift."""
    add, sub, mul = builder.add, builder.sub, builder.mul

    z1 = mul(add(x[2], x[6]), fixed(0.541196100))
    low, high = sub(z1, mul(x[6], fixed(1.847759065))), add(z1, mul(x[2], fixed(0.765366865)))
    rounding = constant(1 << (shift - 1))
    scale = constant(FRACTION)
    total = add(builder.shl(add(x[0], x[4]), scale), rounding)
    difference = add(builder.shl(sub(x[0], x[4]), scale), rounding)
    even = [add(total, high), add(difference, low), sub(difference, low), sub(total, high)]

    z3, z4 = add(x[7], x[3]), add(x[5], x[1])
    z5 = mul(add(z3, z4), fixed(1.175875602))
    z1, z2 = mul(add(x[7], x[1]), fixed(-0.899976223)), mul(add(x[5], x[3]), fixed(-2.562915447))
    z3, z4 = add(mul(z3, fixed(-1.961570560)), z5), add(mul(z4, fixed(-0.390180644)), z5)
    odd = [
        add(mul(x[1], fixed(1.501321110)), add(z1, z4)),
        add(mul(x[3], fixed(3.072711026)), add(z2, z3)),
        add(mul(x[5], fixed(2.053119869)), add(z2, z4)),
        add(mul(x[7], fixed(0.298631336)), add(z1, z3)),
    ]
    sums = [add(e, o) for e, o in zip(even, odd, strict=True)]
    differences = [sub(e, o) for e, o in zip(even, odd, strict=True)]
    return [builder.ashr(value, constant(shift)) for value in (*sums, *reversed(differences))]


def _to_bytes(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """int16 samples around 0 to bytes around 128, clamped."""
    low, high, middle = (ir.Constant(INT16, [number] * 8) for number in (-128, 127, 128))
    value = builder.select(builder.icmp_signed("<", value, low), low, value)
    value = builder.select(builder.icmp_signed(">", value, high), high, value)
    return builder.trunc(builder.add(value, middle), BYTES)


@intrinsic
def idct_block(typingctx, block, plane, at, stride):  # noqa: ARG001 (numba's signature)
    """plane[at + y * stride + x] = sample (y, x) of a block of 64 dequantized coefficients. Nothing is checked.

    Args:
        block: int32 (64,), contiguous, row major, that is, horizontal frequency fastest.
        plane: uint8, contiguous.
        at, stride: intp.
    """

    def codegen(context, builder, signature, args):
        def place(number: int, index: ir.Value, vector: ir.Type) -> ir.Value:
            return pointer(context, builder, signature.args[number], args[number], index, vector)

        at, stride = args[2], args[3]
        rows = [builder.load(place(0, ir.Constant(at.type, 8 * k), INT32), align=4) for k in range(8)]
        for k in range(8):
            builder.store(constant(0), place(0, ir.Constant(at.type, 8 * k), INT32), align=4)
        columns = shuffled(builder, _pass(builder, rows, FRACTION - EXTRA))
        columns = _pass(builder, columns, FRACTION + EXTRA + 3)
        # Sound data stays far inside 16 bits here; nonsense wraps and is nonsense still.
        rows = shuffled(builder, [builder.trunc(column, INT16) for column in columns])
        for k, row in enumerate(rows):
            index = builder.add(at, builder.mul(stride, ir.Constant(at.type, k)))
            builder.store(_to_bytes(builder, row), place(1, index, BYTES), align=1)
        return context.get_dummy_value()

    return types.void(block, plane, types.intp, types.intp), codegen
