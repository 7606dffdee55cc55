"""Helpers for kernels that are written as LLVM vector instructions, and memory by address.

Passing an array to a function pushes seven words, and numba's index may be negative, which costs instructions. The
innermost functions get addresses (`array.ctypes.data`) instead. Their callers keep the arrays alive and check bounds.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic


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


def pointer(builder: ir.IRBuilder, where: ir.Value, kind: ir.Type, offset: int = 0) -> ir.Value:
    """A pointer to `kind`, `offset` bytes behind an address."""
    if offset:
        where = builder.add(where, ir.Constant(where.type, offset))
    return builder.inttoptr(where, kind.as_pointer())


@intrinsic
def prefetch(typingctx, array, index):  # noqa: ARG001 (numba's signature)
    """Starts loading the cache line with element `index` of a contiguous 1-D array. The index is not checked."""

    def codegen(context, builder, signature, args):
        where = address(context, builder, signature.args[0], args[0], args[1], ir.IntType(8))
        number = ir.IntType(32)
        declared = ir.FunctionType(ir.VoidType(), [where.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, declared, "llvm.prefetch.p0i8")
        read, all_caches, data = 0, 3, 1
        builder.call(function, [where, *(ir.Constant(number, value) for value in (read, all_caches, data))])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


def _loader(kind: ir.IntType, result: types.Integer, big_endian: bool = False):
    def typed(typingctx, where):  # noqa: ARG001 (numba's signature)
        def codegen(context, builder, signature, args):  # noqa: ARG001 (numba's signature)
            value = builder.load(pointer(builder, args[0], kind), align=1)
            if big_endian:
                value = builder.bswap(value)
            return value if kind.width == 64 else builder.sext(value, ir.IntType(64))

        return result(types.intp), codegen

    return intrinsic(typed)


load_int32 = _loader(ir.IntType(32), types.int64)
load_big_endian = _loader(ir.IntType(64), types.uint64, big_endian=True)


@intrinsic
def store_int16(typingctx, where, value):  # noqa: ARG001 (numba's signature)
    """Stores the lower 16 bits of an int64 at an address."""

    def codegen(context, builder, signature, args):  # noqa: ARG001 (numba's signature)
        word = builder.trunc(args[1], ir.IntType(16))
        builder.store(word, pointer(builder, args[0], word.type), align=1)
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), codegen
