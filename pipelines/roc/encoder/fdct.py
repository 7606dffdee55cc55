"""The forward DCT of libjpeg's accurate integer method ("islow") and its quantization, to the bit, as vectors.

Loeffler, Ligtenberg and Moschytz 1989, the transposed flow graph of `idct`: rows first, then columns.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from pipelines.roc.decoder.transpose import shuffled
from pipelines.roc.decoder.vectors import BYTES, EXTRA, FLOATS, FRACTION, INT16, INT32, constant, fixed, floats, pointer


def _pass(builder: ir.IRBuilder, x: list[ir.Value], is_first: bool) -> list[ir.Value]:
    """One dimension: x[k] holds sample k of eight columns; the result holds frequency k."""
    add, sub, mul = builder.add, builder.sub, builder.mul

    def descaled(value: ir.Value, shift: int) -> ir.Value:
        return builder.ashr(add(value, constant(1 << (shift - 1))), constant(shift))

    def whole(value: ir.Value) -> ir.Value:
        return builder.shl(value, constant(EXTRA)) if is_first else descaled(value, EXTRA)

    shift = FRACTION - EXTRA if is_first else FRACTION + EXTRA
    sums = [add(x[k], x[7 - k]) for k in range(4)]
    differences = [sub(x[k], x[7 - k]) for k in range(4)]
    outer, inner = add(sums[0], sums[3]), add(sums[1], sums[2])
    t12, t13 = sub(sums[1], sums[2]), sub(sums[0], sums[3])
    z1 = mul(add(t12, t13), fixed(0.541196100))
    second = descaled(add(z1, mul(t13, fixed(0.765366865))), shift)
    sixth = descaled(sub(z1, mul(t12, fixed(1.847759065))), shift)

    t7, t6, t5, t4 = differences
    z3, z4 = add(t4, t6), add(t5, t7)
    z5 = mul(add(z3, z4), fixed(1.175875602))
    z1, z2 = mul(add(t4, t7), fixed(-0.899976223)), mul(add(t5, t6), fixed(-2.562915447))
    z3, z4 = add(mul(z3, fixed(-1.961570560)), z5), add(mul(z4, fixed(-0.390180644)), z5)
    first = add(mul(t7, fixed(1.501321110)), add(z1, z4))
    third = add(mul(t6, fixed(3.072711026)), add(z2, z3))
    fifth = add(mul(t5, fixed(2.053119869)), add(z2, z4))
    seventh = add(mul(t4, fixed(0.298631336)), add(z1, z3))
    odd = [descaled(value, shift) for value in (first, third, fifth, seventh)]
    return [whole(add(outer, inner)), odd[0], second, odd[1], whole(sub(outer, inner)), odd[2], sixth, odd[3]]


def _quantized(builder: ir.IRBuilder, value: ir.Value, half: ir.Value, reciprocal: ir.Value) -> ir.Value:
    """Division by the step, halves away from zero.

    In floating point: a sum of at most 17 bits plus a half is never within rounding errors of a multiple of the step.
    """
    negative = builder.icmp_signed("<", value, constant(0))
    size = builder.add(builder.select(negative, builder.neg(value), value), half)
    exact = builder.fadd(builder.sitofp(size, FLOATS), floats(0.5))
    size = builder.fptosi(builder.fmul(exact, reciprocal), INT32)
    return builder.select(negative, builder.neg(size), size)


@intrinsic
def fdct_block(typingctx, plane, at, stride, halves, reciprocals, table, out):  # noqa: ARG001 (numba's signature)
    """Quantized coefficients of the block whose sample (y, x) is plane[at + y * stride + x]. Nothing is checked.

    Args:
        plane: uint8, contiguous.
        at, stride: intp.
        halves: int32 (64 * T,), half of 8 times each quantization step, rounded down, row major.
        reciprocals: float32 (64 * T,), 1 / (8 times the step).
        table: intp, where in both the block's table begins.
        out: int32 (64,), contiguous, filled row major, that is, horizontal frequency fastest.

    Returns:
        uint64, a bit for each coefficient that is not zero.
    """

    def codegen(context, builder, signature, args):
        def place(number: int, index: ir.Value, vector: ir.Type) -> ir.Value:
            return pointer(context, builder, signature.args[number], args[number], index, vector)

        def load(number: int, index: ir.Value, vector: ir.Type, align: int) -> ir.Value:
            return builder.load(place(number, index, vector), align=align)

        at, stride, table = args[1], args[2], args[5]
        rows = []
        for k in range(8):
            row = load(0, builder.add(at, builder.mul(stride, ir.Constant(at.type, k))), BYTES, 1)
            rows.append(builder.zext(row, INT16))
        columns = [builder.sub(builder.sext(column, INT32), constant(128)) for column in shuffled(builder, rows)]
        rows = _pass(builder, shuffled(builder, _pass(builder, columns, True)), False)
        mask, word = ir.Constant(ir.IntType(64), 0), ir.IntType(64)
        for k, row in enumerate(rows):
            index = builder.add(table, ir.Constant(at.type, 8 * k))
            value = _quantized(builder, row, load(3, index, INT32, 4), load(4, index, FLOATS, 4))
            builder.store(value, place(6, ir.Constant(at.type, 8 * k), INT32), align=4)
            bits = builder.bitcast(builder.icmp_signed("!=", value, constant(0)), ir.IntType(8))
            mask = builder.or_(mask, builder.shl(builder.zext(bits, word), ir.Constant(word, 8 * k)))
        return mask

    return types.uint64(plane, types.intp, types.intp, halves, reciprocals, types.intp, out), codegen
