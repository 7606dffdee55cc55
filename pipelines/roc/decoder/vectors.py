"""What kernels written as vector instructions share: types of eight lanes, constants, places in arrays."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

LANES = 8
BYTES, INT16, INT32 = (ir.VectorType(ir.IntType(bits), LANES) for bits in (8, 16, 32))
FLOATS = ir.VectorType(ir.FloatType(), LANES)
FRACTION = 13
"""Fractional bits of libjpeg's transforms."""
EXTRA = 2
"""Fractional bits that the first of their two passes keeps."""


def constant(value: int) -> ir.Constant:
    """Eight times an int32."""
    return ir.Constant(INT32, [value] * LANES)


def floats(value: float) -> ir.Constant:
    """Eight times a float32."""
    return ir.Constant(FLOATS, [value] * LANES)


def fixed(value: float) -> ir.Constant:
    """Eight times a number as libjpeg's transforms have it."""
    return constant(round(value * (1 << FRACTION)))


def order(indices: list[int]) -> ir.Constant:
    """Which elements a shuffle takes."""
    return ir.Constant(ir.VectorType(ir.IntType(32), len(indices)), indices)


def pointer(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, index: ir.Value, vector: ir.Type
) -> ir.Value:
    """Where element `index` of a contiguous array of one dimension lies, as the place of a vector. Unchecked."""
    made = context.make_array(array_type)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, array_type, made, [index])
    return builder.bitcast(item, vector.as_pointer())


def load_three(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, index: ir.Value, vector: ir.Type
) -> tuple[ir.Value, ir.Value]:
    """24 elements from `index` on, as two vectors of 16, as shuffles take them; the last 8 stand for nothing."""
    parts = []
    for k in range(3):
        at = builder.add(index, ir.Constant(index.type, LANES * k))
        parts.append(builder.load(pointer(context, builder, array_type, array, at, vector), align=1))
    both = order(list(range(2 * LANES)))
    return builder.shuffle_vector(parts[0], parts[1], both), builder.shuffle_vector(parts[2], parts[2], both)
