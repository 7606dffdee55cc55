"""Kernels that find the checkpoints of JPEG files: all of the entropy-coded data is parsed, and nothing is kept of it.

The scan is strict. Each Huffman code has to be valid, each block has to end within 64 coefficients, restart markers
have to stand where they belong, and the end marker has to follow the last MCU with at most seven bits between them. All
decoders give the same pixels of a file that passes. Others get no checkpoints.
"""

from __future__ import annotations

import numpy as np

import fixres.pipelines.crop_index.checkpoints as checkpoints
import fixres.pipelines.roc.decoder.entropy as entropy
from fixres.pipelines.crop_index.headers import read_headers
from fixres.pipelines.crop_index.lookups import NUM_LOOKUPS, fill_lookups, fits
from fixres.pipelines.roc.decoder.jpeg_tables import END_OF_BLOCK, LOOKUP_SIZE, Tables, empty_tables
from fixres.pipelines.roc.decoder.segments import lay_out_blocks
from fixres.pipelines.roc.decoder.unstuffing import unstuff
from fixres.pipelines.runtime.numba_cache import kernel

_LAST = entropy.LAST
_MAX_BLOCKS = 6  # in an MCU
_EOI, _RST = 0xD9, 0xD0
_MAX_POSITION = (1 << 32) - 1
# State of a scan, int64: DC values by component, MCUs passed, words written, offset of the current part of the data
# (from one restart marker to the next) in the entropy-coded data, byte of the part up to which stuffed ones were
# counted, their number.
_DC, _MCU, _WORD, _PART, _COUNTED, _STUFFED = 0, 3, 4, 5, 6, 7
_NUM_STATE = 8


@kernel
def read_samples(data: np.ndarray, spans: np.ndarray, samples: np.ndarray) -> int:
    """Reads the headers of files, and gives each its place in the words.

    Args:
        data: uint8; untrusted.
        spans: int64 (n, 2): where each file begins, and its bytes; inside `data`.
        samples: int64 (n, NUM_SAMPLE_COLUMNS), filled except DATA_SIZE.

    Returns:
        The number of words that `scan_samples` writes.
    """
    tables, total = empty_tables(), 0
    for i in range(spans.shape[0]):
        samples[i, :] = 0
        jpeg = data[spans[i, 0] : spans[i, 0] + spans[i, 1]]
        samples[i, checkpoints.KIND] = read_headers(jpeg, samples[i], tables)
        samples[i, checkpoints.FIRST] = total
        total += checkpoints.num_words(samples[i])
    return total


@kernel
def scan_samples(data: np.ndarray, spans: np.ndarray, samples: np.ndarray, words: np.ndarray) -> None:
    """Writes the checkpoints of files.

    Args:
        data, spans: as for `read_samples`.
        samples: from `read_samples`; DATA_SIZE is filled. Files that turn out to be damaged get another KIND.
        words: uint16, filled.
    """
    tables, several, largest = empty_tables(), np.zeros(NUM_LOOKUPS * LOOKUP_SIZE, np.int32), 0
    for i in range(spans.shape[0]):
        largest = max(largest, spans[i, 1])
    work = np.empty(largest + entropy.SLACK, np.uint8)
    for i in range(spans.shape[0]):
        sample = samples[i]
        if sample[checkpoints.KIND] == checkpoints.INDEXED:
            jpeg, first = data[spans[i, 0] : spans[i, 0] + spans[i, 1]], sample[checkpoints.FIRST]
            read_headers(jpeg, sample, tables)
            part = words[first : first + checkpoints.num_words(sample)]
            if not _scan(jpeg, sample, tables, several, work, part):
                sample[checkpoints.KIND] = checkpoints.DAMAGED


@kernel
def _scan(
    jpeg: np.ndarray, sample: np.ndarray, tables: Tables, several: np.ndarray, work: np.ndarray, words: np.ndarray
) -> bool:
    """Scans one file; False if it is damaged."""
    blocks, state = np.empty((_MAX_BLOCKS, entropy.NUM_COLUMNS), np.int64), np.zeros(_NUM_STATE, np.int64)
    num_blocks = lay_out_blocks(tables, 1, (8, 8), 0, np.zeros(3, np.int64), np.zeros(3, np.int32), blocks)
    fill_lookups(tables.lookup, several)
    lookups = tables.lookup.ctypes.data, several.ctypes.data
    num = checkpoints.num_mcus(sample[checkpoints.HEIGHT], sample[checkpoints.BLOCK_ROWS])
    num *= checkpoints.num_mcus(sample[checkpoints.WIDTH], sample[checkpoints.BLOCK_COLUMNS])
    interval = sample[checkpoints.RESTART_INTERVAL] if sample[checkpoints.RESTART_INTERVAL] > 0 else num
    header, at, markers = sample[checkpoints.HEADER_SIZE], sample[checkpoints.HEADER_SIZE], 0
    while state[_MCU] < num:
        stop, size = unstuff(jpeg, at, jpeg.size, work.ctypes.data)
        state[: _DC + 3] = 0
        state[_PART], state[_COUNTED], state[_STUFFED] = at - header, 0, 0
        end = min(state[_MCU] + interval, num)
        if not _scan_part(work, size, sample, blocks[:num_blocks], end, lookups, state, words):
            return False
        expected = _EOI if end == num else _RST + (markers & 7)
        if stop + 2 > jpeg.size or jpeg[stop + 1] != expected:
            return False
        at, markers = stop + 2, markers + 1
    sample[checkpoints.DATA_SIZE] = at - 2 - header
    return 8 * sample[checkpoints.DATA_SIZE] <= _MAX_POSITION


@kernel
def _scan_part(
    work: np.ndarray,
    size: int,
    sample: np.ndarray,
    blocks: np.ndarray,
    end: int,
    lookups: tuple[int, int],
    state: np.ndarray,
    words: np.ndarray,
) -> bool:
    """Scans from one restart marker to the next. Kernels take arrays instead of objects: many parameters.

    Args:
        work: uint8, the part without stuffed bytes, and `entropy.SLACK` bytes.
        size: bytes of the part.
        sample, state, words: see `_scan`.
        blocks: int64 (m, 8), those of an MCU.
        end: the number of the MCU after the part.
        lookups: addresses of `Tables.lookup` and of the lookups of several symbols.

    Returns:
        True if the data was valid.
    """
    columns = checkpoints.num_mcus(sample[checkpoints.WIDTH], sample[checkpoints.BLOCK_COLUMNS])
    step, start = checkpoints.spacing(sample), np.int64(work.ctypes.data)
    bits, num_bits, at, stop = np.uint64(0), 0, start, start + size
    singles, several = np.int64(lookups[0]), np.int64(lookups[1])
    for mcu in range(state[_MCU], end):
        if mcu % columns % step == 0:
            _write(work, 8 * (at - start) - num_bits, sample[checkpoints.NUM_COMPONENTS], state, words)
        for row in range(blocks.shape[0]):
            bits, num_bits, at = entropy.refill(bits, num_bits, at)
            entry = entropy.any_entry(bits, blocks[row, entropy.DC_LOOKUP], blocks[row, entropy.DC_CODES])
            if entry & 255 == 0:
                return False
            bits, num_bits = bits << np.uint64(entry & 255), num_bits - (entry & 255)
            dc = state[_DC + blocks[row, entropy.COMPONENT]] + (entry >> 16)
            state[_DC + blocks[row, entropy.COMPONENT]] = dc
            single, codes = blocks[row, entropy.AC_LOOKUP], blocks[row, entropy.AC_CODES]
            table, k = several + single - singles, 0
            while k < _LAST:
                bits, num_bits, at = entropy.refill(bits, num_bits, at)
                entry = entropy.entry_of(bits, table)
                if not fits(entry, k + (entry >> 8)):
                    entry = entropy.any_entry(bits, single, codes)
                    bits, num_bits = bits << np.uint64(entry & 255), num_bits - (entry & 255)
                    k += (entry >> 8) & 255
                    continue
                bits, num_bits, k = bits << np.uint64(entry & 255), num_bits - (entry & 255), k + (entry >> 8)
                entry = entropy.entry_of(bits, table)  # a refill gives 56 bits, an entry takes 25
                if k < _LAST and fits(entry, k + (entry >> 8)):
                    bits, num_bits, k = bits << np.uint64(entry & 255), num_bits - (entry & 255), k + (entry >> 8)
            if _LAST < k < END_OF_BLOCK or 8 * (stop - at) + num_bits < 0 or dc != np.int16(dc):
                return False
    state[_MCU] = end
    return 8 * (stop - at) + num_bits <= entropy.MAX_PADDING


@kernel
def _write(work: np.ndarray, position: int, num_components: int, state: np.ndarray, words: np.ndarray) -> None:
    """Writes a checkpoint; `position` counts the bits of the part without stuffed bytes."""
    byte = position >> 3
    # Over a slice that begins at 0 this becomes vector code.
    passed, num = work[state[_COUNTED] : byte], np.int32(0)
    for k in range(passed.size):
        num += np.int32(passed[k] == 255)
    state[_STUFFED] += num
    state[_COUNTED] = byte
    position += 8 * (state[_PART] + state[_STUFFED])
    at = state[_WORD]
    words[at], words[at + 1] = position & 0xFFFF, position >> 16
    for k in range(num_components):
        words[at + 2 + k] = state[_DC + k] & 0xFFFF
    state[_WORD] = at + 2 + num_components
