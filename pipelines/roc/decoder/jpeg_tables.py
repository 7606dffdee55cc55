"""Reads a level's JPEG headers into the form that the entropy decoder needs: Huffman lookups and quantization steps.

The headers are untrusted. Only one kind is accepted: baseline, 8 bits, one scan, three components with one chroma block
in each MCU, or one component.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fixres.pipelines.roc.layout import APP0, APP15, COM, DHT, DQT, DRI, SOF0, SOI, SOS
from fixres.pipelines.runtime.numba_cache import kernel, shared_kernel

LOOKUP_BITS = 10
"""Bits of a lookup. It holds 95 % of the codes of photographs at quality 90 together with their values."""
LOOKUP_SIZE = 1 << LOOKUP_BITS
END_OF_BLOCK = 128  # coefficients to go forward, beyond every block; more than any valid or invalid run
LIMIT, OFFSET, SYMBOLS, CODES_SIZE = 0, 18, 35, 291

# Row major positions of the coefficients in scan order (JPEG standard, figure A.6).
SCAN_ORDER = np.array(
    sorted(range(64), key=lambda k: (k // 8 + k % 8, k // 8 if (k // 8 + k % 8) % 2 else k % 8)), np.uint8
)

_NO_TABLE = -1


class Tables(NamedTuple):
    """The tables of a scan, in flat arrays, because views take time in the kernel.

    Huffman table 2 * t + c has number t and class c: 0 for DC, 1 for AC.

    Attributes:
        lookup: int32 (4 * 1024,), for each Huffman table an entry for the next 10 bits. If code and value fit into
            them: bits of both together (low byte), coefficients to go forward (next byte), signed value. If only the
            code fits: 0, symbol, bits of the code. If neither fits: 0.
        codes: int32 (4 * 291,), for each Huffman table: at LIMIT + k, one above the codes of k bits, shifted to 16
            bits, for k up to 16, and at k = 17 a limit above everything; at OFFSET + k, the rank of a code of k bits
            minus the code; at SYMBOLS, the symbols by rank.
        steps: int32 (4 * 64,), quantization steps, row major.
        components: int64 (3, 3): for each component its quantization, DC and AC table.
        frame: int64 (5,): height, width, number of components, rows and columns of luma blocks in an MCU.
    """

    lookup: np.ndarray
    codes: np.ndarray
    steps: np.ndarray
    components: np.ndarray
    frame: np.ndarray


@shared_kernel
def empty_tables() -> Tables:
    """Uninitialized tables for `read_tables`."""
    return Tables(
        np.empty(4 * LOOKUP_SIZE, np.int32),
        np.empty(4 * CODES_SIZE, np.int32),
        np.empty(4 * 64, np.int32),
        np.empty((3, 3), np.int64),
        np.empty(5, np.int64),
    )


@shared_kernel
def read_tables(header: np.ndarray, tables: Tables) -> bool:
    """Reads the headers of a JPEG, uint8, from SOI to the end of SOS; False if they are not of the accepted kind."""
    if header.size < 4 or header[0] != 0xFF or header[1] != SOI:
        return False
    seen_steps, seen_codes = np.zeros(4, np.bool_), np.zeros(4, np.bool_)
    ids = np.full(3, _NO_TABLE, np.int64)
    at, have_frame = 2, False
    while at + 4 <= header.size and header[at] == 0xFF:
        marker, size = header[at + 1], np.int64(header[at + 2]) << 8 | header[at + 3]
        body, end = at + 4, at + 2 + size
        if size < 2 or end > header.size:
            return False
        if marker == DQT:
            valid = _read_steps(header, body, end, tables.steps, seen_steps)
        elif marker == DHT:
            valid = _read_codes(header, body, end, tables, seen_codes)
        elif marker == SOF0:
            valid = not have_frame and _read_frame(header, body, end, tables, ids)
            have_frame = True
        elif marker == SOS:
            valid = have_frame and end == header.size and _read_scan(header, body, end, tables, ids)
            return valid and _all_seen(tables, seen_steps, seen_codes)
        else:
            valid = marker == DRI or marker == COM or APP0 <= marker <= APP15
        if not valid:
            return False
        at = end
    return False


@kernel
def _read_steps(header: np.ndarray, at: int, end: int, steps: np.ndarray, seen: np.ndarray) -> bool:
    while at < end:
        number = header[at]
        if number > 3 or at + 65 > end:  # the upper four bits are the precision, 0 for bytes
            return False
        for k in range(64):
            steps[64 * np.int64(number) + SCAN_ORDER[k]] = header[at + 1 + k]
        seen[number] = True
        at += 65
    return True


@kernel
def _read_frame(header: np.ndarray, at: int, end: int, tables: Tables, ids: np.ndarray) -> bool:
    """Size, and for each component its sampling and quantization table."""
    if end - at < 6 or header[at] != 8:
        return False
    count = np.int64(header[at + 5])
    if (count != 1 and count != 3) or end - at != 6 + 3 * count:
        return False
    frame = tables.frame
    frame[0], frame[1] = np.int64(header[at + 1]) << 8 | header[at + 2], np.int64(header[at + 3]) << 8 | header[at + 4]
    frame[2], frame[3], frame[4] = count, 1, 1
    for k in range(count):
        entry = at + 6 + 3 * k
        ids[k], sampling, table = header[entry], header[entry + 1], header[entry + 2]
        columns, rows = sampling >> 4, sampling & 15
        if table > 3 or not _is_known_sampling(rows, columns) or (k > 0 and sampling != 0x11):
            return False
        tables.components[k, 0] = table
        if k == 0 and count == 3:  # the MCU of a single component has one block, whatever its sampling
            frame[3], frame[4] = rows, columns
    return True


@kernel
def _is_known_sampling(rows: int, columns: int) -> bool:
    """Whether a luma component is that of 4:4:4, 4:2:2, 4:4:0, 4:2:0 or 4:1:1."""
    return (1 <= columns <= 2 and 1 <= rows <= 2) or (columns == 4 and rows == 1)


@kernel
def _read_scan(header: np.ndarray, at: int, end: int, tables: Tables, ids: np.ndarray) -> bool:
    """Huffman tables of each component. The scan must hold all components, in order and complete."""
    count = tables.frame[2]
    if end - at != 4 + 2 * count or header[at] != count:
        return False
    for k in range(count):
        chosen = header[at + 2 + 2 * k]
        if header[at + 1 + 2 * k] != ids[k] or (chosen >> 4) > 1 or (chosen & 15) > 1:
            return False
        tables.components[k, 1], tables.components[k, 2] = 2 * np.int64(chosen >> 4), 2 * np.int64(chosen & 15) + 1
    last = at + 1 + 2 * count
    return header[last] == 0 and header[last + 1] == 63 and header[last + 2] == 0


@kernel
def _all_seen(tables: Tables, seen_steps: np.ndarray, seen_codes: np.ndarray) -> bool:
    for k in range(tables.frame[2]):
        steps, dc, ac = tables.components[k]
        if not (seen_steps[steps] and seen_codes[dc] and seen_codes[ac]):
            return False
    return True


@kernel
def _read_codes(header: np.ndarray, at: int, end: int, tables: Tables, seen: np.ndarray) -> bool:
    """Huffman tables (JPEG standard, annex C): the number of codes of each length, then symbols by rank."""
    while at < end:
        if at + 17 > end or (header[at] & 15) > 1 or (header[at] >> 4) > 1:
            return False
        is_ac = header[at] >> 4 == 1
        number = 2 * np.int64(header[at] & 15) + is_ac
        codes = tables.codes[number * CODES_SIZE : (number + 1) * CODES_SIZE]
        code, rank = 0, 0
        for length in range(1, 17):
            count = np.int64(header[at + length])
            codes[OFFSET + length] = rank - code
            code, rank = code + count, rank + count
            if code > 1 << length or rank > 256:
                return False
            codes[LIMIT + length] = code << (16 - length)
            code <<= 1
        codes[LIMIT + 17] = 1 << 17
        if at + 17 + rank > end:
            return False
        for k in range(rank):
            symbol = header[at + 17 + k]
            if not is_ac and symbol > 15:
                return False
            codes[SYMBOLS + k] = symbol
        lookup = tables.lookup[number * LOOKUP_SIZE : (number + 1) * LOOKUP_SIZE]
        _fill_lookup(header[at + 1 : at + 17], codes[SYMBOLS:], is_ac, lookup)
        seen[number] = True
        at += 17 + rank
    return True


@kernel
def _fill_lookup(counts: np.ndarray, symbols: np.ndarray, is_ac: bool, lookup: np.ndarray) -> None:
    """Fills `Tables.lookup`. Codes come in increasing order, so the entries do, too."""
    at, rank = 0, 0
    for length in range(1, LOOKUP_BITS + 1):
        for _ in range(counts[length - 1]):
            symbol = np.int64(symbols[rank])
            rank += 1
            forward, size = (symbol >> 4) + 1, symbol & 15
            if is_ac and size == 0 and forward < 16:
                forward = END_OF_BLOCK
            spare = LOOKUP_BITS - length - size
            if spare < 0:
                at = _repeat(symbol << 8 | length << 16, LOOKUP_BITS - length, lookup, at)
                continue
            for bits in range(1 << size):
                value = bits if size == 0 or bits >> (size - 1) else bits - (1 << size) + 1
                at = _repeat(value * 65536 + (forward << 8) + length + size, spare, lookup, at)
    lookup[at:] = 0


@kernel
def _repeat(entry: int, spare_bits: int, lookup: np.ndarray, at: int) -> int:
    end = at + (1 << spare_bits)
    for k in range(at, end):
        lookup[k] = entry
    return end
