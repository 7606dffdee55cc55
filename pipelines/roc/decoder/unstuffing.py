"""Removes the zero bytes that JPEG stuffs behind each byte 255, so that eight bytes can be read at once."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fixres.pipelines.roc.decoder.vectors import pointer, splat, vector
from fixres.pipelines.runtime.numba_cache import kernel

_GROUP = 32


def _copy(lanes: int):
    """An intrinsic that copies bytes between addresses; returns a bit for each that is 255, the first one lowest."""
    kind = vector(8, lanes)

    def typed(typingctx, source, target):  # noqa: ARG001 (numba's signature)
        def codegen(context, builder, signature, args):  # noqa: ARG001 (numba's signature)
            group = builder.load(pointer(builder, args[0], kind), align=1)
            builder.store(group, pointer(builder, args[1], kind), align=1)
            full = builder.bitcast(builder.icmp_unsigned("==", group, splat(kind, 255)), ir.IntType(lanes))
            return builder.zext(full, ir.IntType(64))

        return types.uint64(types.intp, types.intp), codegen

    return intrinsic(typed)


_copy_group, _copy_byte = _copy(_GROUP), _copy(1)


@intrinsic
def _lowest_bit(typingctx, mask):  # noqa: ARG001 (numba's signature)
    """The number of the lowest bit that is set in a number above 0."""

    def codegen(context, builder, signature, args):  # noqa: ARG001 (numba's signature)
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@kernel
def unstuff(source: np.ndarray, begin: int, end: int, target: int) -> tuple[int, int]:
    """Copies source[begin:end], uint8, up to the first marker, without stuffed bytes.

    Args:
        source, begin, end: see above.
        target: an address with room for 32 bytes more.

    Returns:
        Where it stopped: at `end`, or at a byte 255 before something else than a 0. The number of bytes written.
    """
    at, to, start = begin, target, source.ctypes.data
    while at < end:
        if at + _GROUP <= source.size:
            full = _copy_group(start + at, to)
            step = _GROUP if full == 0 else _lowest_bit(full) + 1
        else:
            full, step = _copy_byte(start + at, to), 1
        at, to = at + step, to + step
        if at > end:
            return end, to - target - (at - end)
        if full != 0:
            if at == end or source[np.uint64(at)] != 0:
                return at - 1, to - target - 1
            at += 1
    return end, to - target
