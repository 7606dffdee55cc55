"""Transposes uint16 matrices eight rows and columns at a time, with vector shuffles.

LLVM does not turn nested loops into a blocked transpose. The plain loop takes 1.7 ns per element, more than both passes
of the resampler together; the blocked one takes a tenth of that.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fixres.pipelines.roc.decoder.vectors import shuffle, vector
from fixres.pipelines.runtime.numba_cache import kernel

BLOCK = 8


@intrinsic
def _transpose_block(typingctx, source, y, x, target):  # noqa: ARG001 (numba's signature)
    """target[x : x + 8, y : y + 8] = source[y : y + 8, x : x + 8] transposed. Bounds are not checked."""
    signature = types.void(source, types.intp, types.intp, target)

    def codegen(context, builder, signature, args):
        source_type, _, _, target_type = signature.args
        source = context.make_array(source_type)(context, builder, args[0])
        target = context.make_array(target_type)(context, builder, args[3])
        row_type = vector(16, BLOCK)

        def row_pointer(array_type, array, row, offset, column):
            index = [builder.add(row, ir.Constant(row.type, offset)), column]
            item = cgutils.get_item_pointer(context, builder, array_type, array, index)
            return builder.bitcast(item, row_type.as_pointer())

        y, x = args[1], args[2]
        rows = [builder.load(row_pointer(source_type, source, y, k, x), align=2) for k in range(BLOCK)]
        for k, column in enumerate(transposed(builder, rows)):
            builder.store(column, row_pointer(target_type, target, x, k, y), align=2)
        return context.get_dummy_value()

    return signature, codegen


def transposed(builder: ir.IRBuilder, rows: list[ir.Value]) -> list[ir.Value]:
    """Transposes n rows of n elements, where n is a power of two.

    Each round interleaves row k with row k + n / 2, which rotates the bits of an element's index by one.
    """
    num = len(rows)
    lanes = [lane for k in range(num) for lane in (k, num + k)]
    for _ in range(num.bit_length() - 1):
        interleaved = []
        for k in range(num // 2):
            interleaved.append(shuffle(builder, rows[k], rows[k + num // 2], lanes[:num]))
            interleaved.append(shuffle(builder, rows[k], rows[k + num // 2], lanes[num:]))
        rows = interleaved
    return rows


@kernel
def transpose(source: np.ndarray, target: np.ndarray) -> None:
    """target[x, y] = source[y, x].

    Args:
        source: uint16 (H, W), contiguous, both multiples of 8.
        target: uint16 (W, H), contiguous.
    """
    height, width = source.shape
    assert height % BLOCK == 0 and width % BLOCK == 0 and target.shape[0] == width and target.shape[1] == height
    for y in range(0, height, BLOCK):
        for x in range(0, width, BLOCK):
            _transpose_block(source, y, x, target)
