"""Decodes segments of entropy-coded JPEG data from the stored bytes into planes.

Why not libjpeg-turbo: restart markers disable its fast Huffman decoder, and each crop would first have to be assembled
as a JPEG and its tables built again. Here the index gives the position of each segment. The samples equal libjpeg's to
the bit. A segment must hold exactly its MCUs, to the last byte: damage that libjpeg conceals is an error.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from fixres.pipelines.roc.decoder.idct import idct_block
from fixres.pipelines.roc.decoder.jpeg_tables import (
    CODES_SIZE,
    END_OF_BLOCK,
    LIMIT,
    LOOKUP_BITS,
    LOOKUP_SIZE,
    OFFSET,
    SYMBOLS,
)
from fixres.pipelines.roc.decoder.vectors import address
from fixres.pipelines.runtime.numba_cache import kernel

# Columns of a block of the MCU, all int64: component, bytes from row to row of its plane, start of its steps in
# `Tables.steps`, starts of its DC and AC tables in `Tables.lookup`.
COMPONENT, STRIDE, STEPS, DC_TABLE, AC_TABLE = range(5)
NUM_BLOCK = 5

# Row major positions of the coefficients in scan order (JPEG standard, figure A.6).
SCAN_ORDER = np.array(
    sorted(range(64), key=lambda k: (k // 8 + k % 8, k // 8 if (k // 8 + k % 8) % 2 else k % 8)), np.uint8
)
_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_LOOKUP_SHIFT, _CODE_SHIFT = np.uint64(64 - LOOKUP_BITS), np.uint64(64 - 16)


@intrinsic
def _load_big_endian(typingctx, data, at):  # noqa: ARG001 (numba's signature)
    """data[at : at + 8] as a number. Bounds are not checked."""

    def codegen(context, builder, signature, args):
        word = address(context, builder, signature.args[0], args[0], args[1], ir.IntType(64))
        return builder.bswap(builder.load(word, align=1))

    return types.uint64(data, types.intp), codegen


# One function, because its state must stay in registers: the bits read ahead (next bit on top), their number, the
# position of the next byte. Each call with several arrays pushes dozens of words, which took a tenth of the time.
@kernel
def decode_segment(
    data: np.ndarray,
    at: int,
    end: int,
    lookup: np.ndarray,
    codes: np.ndarray,
    steps: np.ndarray,
    blocks: np.ndarray,
    offsets: np.ndarray,
    block: np.ndarray,
    planes: np.ndarray,
) -> bool:
    """Decodes one segment. Kernels take arrays instead of objects: many parameters.

    Args:
        data: uint8, contiguous. Its bytes [at, end) are the segment; data[end] must exist and be 0xFF.
        at, end: see above.
        lookup, codes, steps: of `jpeg_tables.Tables`.
        blocks: int64 (B * 5,), for each block of an MCU the columns above.
        offsets: int64 (M * B,): position in `planes` of the first sample of each block of the M MCUs.
        block: int32 (64,), contiguous, zeros before and after the call.
        planes: uint8, contiguous, filled.

    Returns:
        True if the data was valid.
    """
    bits, num_bits, num_missing, last_load = np.uint64(0), 0, 0, data.size - 8
    luma, blue, red = 0, 0, 0  # the last DC values; the stored ones are differences
    which = -NUM_BLOCK
    for number in range(offsets.size):
        which = which + NUM_BLOCK if which + NUM_BLOCK < blocks.size else 0
        step, table, k = blocks[which + STEPS], blocks[which + DC_TABLE], 0
        while k < 64:
            if num_bits < 32:  # a code has at most 16 bits and its value 15
                word, fast = np.uint64(0), at <= last_load
                if fast:
                    word = _load_big_endian(data, at)
                    fast = (~word - _ONES) & word & _HIGHS == np.uint64(0)  # no byte is 0xFF
                if fast:
                    bits |= word >> np.uint64(num_bits)
                    at += (63 - num_bits) >> 3
                    num_bits |= 56
                else:
                    while num_bits <= 56:
                        byte = np.uint64(0)
                        if at < end:
                            byte = np.uint64(data[at])
                            at += 1
                            if byte == np.uint64(255):
                                if data[at] != 0:
                                    block[:] = 0
                                    return False
                                at += 1
                        else:
                            num_missing += 8
                        bits |= byte << np.uint64(56 - num_bits)
                        num_bits += 8
            entry = np.int64(lookup[np.uint64(table) + (bits >> _LOOKUP_SHIFT)])
            length, run, value = entry & 255, (entry >> 8) & 255, entry >> 16
            if length == 0:
                symbol, length = run, value
                if length == 0:
                    length, symbol = _long_code(np.int64(bits >> _CODE_SHIFT), table // LOOKUP_SIZE, codes)
                    if length > 16:
                        block[:] = 0
                        return False
                bits <<= np.uint64(length)
                num_bits -= length
                run, length, value = symbol >> 4, symbol & 15, 0
                if length > 0:
                    value = np.int64(bits >> np.uint64(64 - length))
                    if value >> (length - 1) == 0:
                        value -= (1 << length) - 1
                elif run < 15 and k > 0:
                    run = END_OF_BLOCK
            bits <<= np.uint64(length)
            num_bits -= length
            if k == 0:
                table = blocks[which + AC_TABLE]
                if blocks[which + COMPONENT] == 0:
                    luma += value
                    value = luma
                elif blocks[which + COMPONENT] == 1:
                    blue += value
                    value = blue
                else:
                    red += value
                    value = red
            k += run + 1
            if k > 64:
                break
            block[SCAN_ORDER[np.uint64(k - 1)]] = value * steps[np.uint64(step + k - 1)]
        idct_block(block, planes, offsets[number], blocks[which + STRIDE])
        if 64 < k < END_OF_BLOCK:  # a coefficient outside the block
            return False
    while at < end:  # surplus bytes
        at += 2 if data[at] == 255 else 1
        num_bits += 8
    return 0 <= num_bits - num_missing < 8


@kernel
def _long_code(code: int, table: int, codes: np.ndarray) -> tuple[int, int]:
    """Decodes a code that is longer than the lookup from the next 16 bits.

    Returns:
        Bits of the code, 17 if it is invalid, and its symbol.
    """
    base, length = table * CODES_SIZE, LOOKUP_BITS + 1
    while code >= codes[base + LIMIT + length]:
        length += 1
    if length > 16:
        return length, 0
    rank = (code >> (16 - length)) + codes[base + OFFSET + length]
    return length, np.int64(codes[base + SYMBOLS + (rank & 255)])
