"""Helpers for kernels that are written as LLVM vector instructions."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils


def vector(bits: int, lanes: int) -> ir.VectorType:
    """The type of a vector of integers."""
    return ir.VectorType(ir.IntType(bits), lanes)


def splat(kind: ir.VectorType, value: int) -> ir.Constant:
    """A constant vector with the same value in all lanes."""
    return ir.Constant(kind, [value] * kind.count)


def shuffle(builder: ir.IRBuilder, first: ir.Value, second: ir.Value, lanes: list[int]) -> ir.Value:
    """Selects lanes of two vectors; those of `second` are numbered behind those of `first`."""
    return builder.shuffle_vector(first, second, ir.Constant(vector(32, len(lanes)), lanes))


def address(
    context: Any, builder: ir.IRBuilder, array_type: Any, array: ir.Value, index: ir.Value, kind: ir.Type
) -> ir.Value:
    """Pointer to element `index` of a contiguous 1-D array, as a pointer to `kind`. The index is not checked."""
    made = context.make_array(array_type)(context, builder, array)
    item = cgutils.get_item_pointer(context, builder, array_type, made, [index])
    return builder.bitcast(item, kind.as_pointer())
