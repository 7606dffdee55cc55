"""Decodes segments of entropy-coded JPEG data into planes, two at a time.

Why not libjpeg-turbo: restart markers disable its fast Huffman decoder, and each crop would first have to be assembled
as a JPEG and its tables built again. Here the index gives the position of each segment. The samples equal libjpeg's to
the bit. A segment must hold exactly its MCUs, to the last byte: damage that libjpeg conceals is an error.

Each symbol's position depends on the one before, so a processor decodes one sequence of symbols with most of its units
waiting. Two segments are independent: their symbols are decoded in turn.
"""

from __future__ import annotations

import numpy as np

from fixres.pipelines.roc.decoder.idct import clear_block, idct_block, idct_eighth, idct_half, idct_quarter
from fixres.pipelines.roc.decoder.jpeg_tables import END_OF_BLOCK, LIMIT, LOOKUP_BITS, OFFSET, SCAN_ORDER, SYMBOLS
from fixres.pipelines.roc.decoder.vectors import load_big_endian, load_int32, store_int16
from fixres.pipelines.runtime.numba_cache import inlined, kernel, shared_kernel

# Columns of a block of a segment, int64: addresses of the lookup and codes of its DC and AC tables and of its
# quantization steps, bytes from row to row of its plane, its component, the address of its first sample if the segment
# were the first of its plane, and the side of its inverse transform.
DC_LOOKUP, DC_CODES, AC_LOOKUP, AC_CODES, STEPS, STRIDE, COMPONENT, TARGET, SIDE = range(9)
# Columns of a segment, int64: start and number of its bytes without stuffed ones; bits of its first byte that are not
# its own; fewest and most bits that may be left at its end; its first block, the first whose samples are stored, and
# one past the last; whether the DC values of its last blocks are compared; by component its offset in the planes, the
# DC values before its first block, and those of its last blocks.
START, SIZE, SKIPPED_BITS, MIN_REST, MAX_REST, FIRST, SHOWN, END, CHECKED = range(9)
PLANE_OFFSET, DC_BEFORE, DC_AFTER = 9, 12, 15
NUM_COLUMNS, NUM_SEGMENT_COLUMNS = 9, 18

MAX_PADDING = 7  # bits between the last block and a marker
_BLOCK_SIZE = 72  # of int16; values behind the end of a damaged block go to the 65th
NUM_COEFFICIENTS = 2 * _BLOCK_SIZE
SLACK = 512
"""Bytes behind a segment that are read if it is damaged: 64 symbols of 31 bits, and what is read ahead."""

# Columns of a lane, int64: the number of its segment in the order in which they are taken, the block in it, and the DC
# values by component.
_TAKEN, _BLOCK, _DC = range(3)
NUM_LANE_COLUMNS = 5
_NO_SEGMENT = -2
LAST, _INVALID = 63, 64  # the last coefficient; so far forward an invalid code goes
_LOOKUP_SHIFT, _CODE_SHIFT = np.uint64(64 - LOOKUP_BITS), np.uint64(64 - 16)
_PLACES = np.full(LAST + 1 + END_OF_BLOCK, 2 * 64, np.uint8)  # bytes from the start of a block
_PLACES[:64] = 2 * SCAN_ORDER


# One function, because the state of both lanes must stay in registers: bits read ahead (the next one on top), their
# number, the address of the next byte, the position in the block, the addresses of the AC lookup and of the block.
@shared_kernel
def decode_segments(
    data: np.ndarray, segments: np.ndarray, blocks: np.ndarray, lanes: np.ndarray, coefficients: int
) -> bool:
    """Decodes segments into planes.

    Args:
        data: uint8, the segments' bytes without stuffed ones, and `SLACK` bytes.
        segments: int64 (n, 18), the columns above, n > 0.
        blocks: int64 (m, 9), the columns above for each block of a segment.
        lanes: int64 (2, 5), work space.
        coefficients: address of int16 (NUM_COEFFICIENTS,), zeros.

    Returns:
        True if the data was valid.
    """
    start, num_taken, num_left = np.int64(data.ctypes.data), 0, segments.shape[0]
    coefficients = np.int64(coefficients)  # numba makes a float64 of an int64 or uint64
    lane_a, bits_a, num_a, at_a, k_a, table_a, block_a = 0, np.uint64(0), 0, 0, LAST, 0, coefficients
    lane_b, bits_b, num_b, at_b, k_b, table_b, block_b = 1, np.uint64(0), 0, 0, LAST, 0, coefficients + 2 * _BLOCK_SIZE
    codes_a = codes_b = 0
    lanes[:, _BLOCK] = _NO_SEGMENT
    while True:
        while k_a < LAST and k_b < LAST:  # a refill gives 56 bits, a symbol of the lookup takes 10, others 31
            bits_a, num_a, at_a = refill(bits_a, num_a, at_a)
            bits_b, num_b, at_b = refill(bits_b, num_b, at_b)
            entry_a, entry_b = entry_of(bits_a, table_a), entry_of(bits_b, table_b)
            if entry_a & 255 == 0 or entry_b & 255 == 0:
                break
            bits_a, num_a, k_a = _consume(bits_a, num_a, k_a, block_a, entry_a)
            bits_b, num_b, k_b = _consume(bits_b, num_b, k_b, block_b, entry_b)
            if k_a >= LAST or k_b >= LAST:
                break
            entry_a, entry_b = entry_of(bits_a, table_a), entry_of(bits_b, table_b)
            if entry_a & 255 == 0 or entry_b & 255 == 0:
                break
            bits_a, num_a, k_a = _consume(bits_a, num_a, k_a, block_a, entry_a)
            bits_b, num_b, k_b = _consume(bits_b, num_b, k_b, block_b, entry_b)
        if k_a < LAST and k_b < LAST:  # a lookup has no entry; 5 % of the symbols
            entry_a, entry_b = any_entry(bits_a, table_a, codes_a), any_entry(bits_b, table_b, codes_b)
            bits_a, num_a, k_a = _consume(bits_a, num_a, k_a, block_a, entry_a)
            bits_b, num_b, k_b = _consume(bits_b, num_b, k_b, block_b, entry_b)
            continue
        swap = k_a < LAST  # now lane a has ended its block
        bits_a, bits_b = _swapped(swap, bits_a, bits_b)
        num_a, num_b = _swapped(swap, num_a, num_b)
        at_a, at_b = _swapped(swap, at_a, at_b)
        k_a, k_b = _swapped(swap, k_a, k_b)
        table_a, table_b = _swapped(swap, table_a, table_b)
        codes_a, codes_b = _swapped(swap, codes_a, codes_b)
        block_a, block_b = _swapped(swap, block_a, block_b)
        lane_a, lane_b = _swapped(swap, lane_a, lane_b)
        row, taken = lanes[lane_a, _BLOCK], lanes[lane_a, _TAKEN]
        if row >= 0:
            segment = min(taken, segments.shape[0] - 1)
            component = blocks[row, COMPONENT]
            dc = lanes[lane_a, _DC + component]
            target = blocks[row, TARGET] + segments[segment, PLANE_OFFSET + component]
            if row < segments[segment, SHOWN]:
                clear_block(block_a)
            elif blocks[row, SIDE] == 8:
                idct_block(block_a, dc, blocks[row, STEPS], target, blocks[row, STRIDE])
            else:
                _scaled_idct(blocks[row, SIDE], block_a, dc, blocks[row, STEPS], target, blocks[row, STRIDE])
            rest = 8 * (start + segments[segment, START] + segments[segment, SIZE] - at_a) + num_a  # bits
            if LAST < k_a < END_OF_BLOCK or rest < 0:
                return False
            if row + 1 == segments[segment, END]:
                if not _ends_well(rest, lanes, lane_a, segments, segment):
                    return False
                if taken < segments.shape[0]:
                    num_left -= 1
                    if num_left == 0:
                        return True
                row = _NO_SEGMENT
        row += 1
        if row < 0:
            # beside the last segment, that one is decoded again
            segment = min(num_taken, segments.shape[0] - 1)
            bits_a, num_a, at_a = refill(np.uint64(0), 0, start + segments[segment, START])
            skipped, row = segments[segment, SKIPPED_BITS], segments[segment, FIRST]
            bits_a, num_a = bits_a << np.uint64(skipped), num_a - skipped
            lanes[lane_a, _TAKEN] = num_taken
            for k in range(3):
                lanes[lane_a, _DC + k] = segments[segment, DC_BEFORE + k]
            num_taken += 1
        lanes[lane_a, _BLOCK] = row
        bits_a, num_a, at_a = refill(bits_a, num_a, at_a)
        entry_a = any_entry(bits_a, blocks[row, DC_LOOKUP], blocks[row, DC_CODES])
        if entry_a & 255 == 0:
            return False
        bits_a, num_a = bits_a << np.uint64(entry_a & 255), num_a - (entry_a & 255)
        lanes[lane_a, _DC + blocks[row, COMPONENT]] += entry_a >> 16
        table_a, codes_a, k_a = blocks[row, AC_LOOKUP], blocks[row, AC_CODES], 0


@kernel
def _scaled_idct(side: int, block: int, dc: int, steps: int, target: int, stride: int) -> None:
    """Stores the samples of a block at a half, a quarter or an eighth of its sides; see `idct`."""
    if side == 4:
        idct_half(block, dc, steps, target, stride)
    elif side == 2:
        idct_quarter(block, dc, steps, target, stride)
    else:
        idct_eighth(block, dc, steps, target, stride)


@kernel
def _ends_well(rest: int, lanes: np.ndarray, lane: int, segments: np.ndarray, segment: int) -> bool:
    """Whether a segment's last block ends where it should, in the expected state; `rest` counts the bits left."""
    if rest < segments[segment, MIN_REST] or rest > segments[segment, MAX_REST]:
        return False
    if segments[segment, CHECKED] == 1:
        for k in range(3):
            if lanes[lane, _DC + k] != segments[segment, DC_AFTER + k]:
                return False
    return True


@inlined
def _swapped(swap: bool, first: int, second: int) -> tuple[int, int]:
    return (second, first) if swap else (first, second)


@inlined
def refill(bits: np.uint64, num_bits: int, at: int) -> tuple[np.uint64, int, int]:
    """The bits read ahead (the next one on top), at least 56, their number, and the address of the next byte."""
    bits |= load_big_endian(at) >> np.uint64(num_bits)
    return bits, num_bits | 56, at + ((63 - num_bits) >> 3)


@inlined
def entry_of(bits: np.uint64, table: int) -> int:
    return load_int32(table + np.int64((bits >> _LOOKUP_SHIFT) << np.uint64(2)))


@inlined
def _consume(bits: np.uint64, num_bits: int, k: int, block: int, entry: int) -> tuple[np.uint64, int, int]:
    """Stores a coefficient: bits, their number, position in scan order."""
    length = entry & 255
    k += (entry >> 8) & 255
    store_int16(block + _PLACES[np.uint64(k)], entry >> 16)
    return bits << np.uint64(length), num_bits - length, k


@kernel
def any_entry(bits: np.uint64, table: int, codes: int) -> int:
    """What the lookup would hold for the next bits if it had room for it. An invalid code takes no bits."""
    entry = entry_of(bits, table)
    if entry & 255 != 0:
        return entry
    symbol, length = (entry >> 8) & 255, entry >> 16
    if length == 0:
        code, length = np.int64(bits >> _CODE_SHIFT), LOOKUP_BITS + 1
        while code >= load_int32(codes + 4 * (LIMIT + length)):
            length += 1
        if length > 16:
            return _INVALID << 8
        rank = (code >> (16 - length)) + load_int32(codes + 4 * (OFFSET + length))
        symbol = load_int32(codes + 4 * (SYMBOLS + (rank & 255)))
    forward, size = (symbol >> 4) + 1, symbol & 15
    if size == 0:
        return (END_OF_BLOCK if forward < 16 else 16) << 8 | length
    value = np.int64((bits << np.uint64(length)) >> np.uint64(64 - size))
    if value >> (size - 1) == 0:
        value -= (1 << size) - 1
    return value * 65536 + (forward << 8) + length + size
