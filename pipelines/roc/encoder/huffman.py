"""Huffman tables made to measure: the code of fewest bits for symbols that come so and so often."""

from __future__ import annotations

import numpy as np

from pipelines.runtime.numba_cache import kernel

NUM_SYMBOLS = 256
MAX_LENGTH = 16  # bits of a code


@kernel
def optimal_table(histogram: np.ndarray, counts: np.ndarray, symbols: np.ndarray) -> None:
    """Huffman's code with at most 16 bits for each symbol, none of them all ones.

    JPEG standard, annex K.2. Ties are broken as libjpeg does, the larger symbol first, so the tables are its own.

    Args:
        histogram: int64 (256,), how often each symbol comes.
        counts: uint8 (16,), filled: codes of 1 to 16 bits.
        symbols: uint8 (256,), filled: the symbols by length of their codes, then in order.
    """
    lengths = _code_lengths(histogram)
    _limit(lengths, counts)
    rank = 0
    for length in range(1, lengths.max() + 1):
        for symbol in range(NUM_SYMBOLS):
            if lengths[symbol] == length:
                symbols[rank] = symbol
                rank += 1


@kernel
def _code_lengths(histogram: np.ndarray) -> np.ndarray:
    """int64 (257,): bits of each symbol's code. The last symbol, which never comes, takes the code of all ones."""
    lengths, chains = np.zeros(NUM_SYMBOLS + 1, np.int64), np.full(NUM_SYMBOLS + 1, -1, np.int64)
    keys, num = np.empty(NUM_SYMBOLS + 1, np.int64), 1  # frequency << 9 | 256 less the symbol
    keys[0] = 1 << 9
    for symbol in range(NUM_SYMBOLS):
        if histogram[symbol]:
            keys[num] = histogram[symbol] << 9 | (NUM_SYMBOLS - symbol)
            num += 1
    while num > 1:
        least, second = _two_least(keys[:num])
        kept, merged = NUM_SYMBOLS - (keys[least] & 511), NUM_SYMBOLS - (keys[second] & 511)
        keys[least] += keys[second] >> 9 << 9
        num -= 1
        keys[second] = keys[num]
        last = kept
        lengths[kept] += 1
        while chains[last] >= 0:
            last = chains[last]
            lengths[last] += 1
        chains[last] = merged
        while merged >= 0:
            lengths[merged] += 1
            merged = chains[merged]
    return lengths


@kernel
def _two_least(keys: np.ndarray) -> tuple[int, int]:
    """Places of the least key and of the one after it."""
    least, second = (0, 1) if keys[0] < keys[1] else (1, 0)
    for k in range(2, keys.size):
        if keys[k] < keys[least]:
            least, second = k, least
        elif keys[k] < keys[second]:
            second = k
    return least, second


@kernel
def _limit(lengths: np.ndarray, counts: np.ndarray) -> None:
    """How many codes of each length there are once none is longer than 16 bits and the last one is taken out."""
    wanted = np.zeros(NUM_SYMBOLS + 1, np.int64)
    for length in lengths:
        wanted[length] += 1
    for length in range(NUM_SYMBOLS, MAX_LENGTH, -1):
        while wanted[length]:
            shorter = length - 2
            while not wanted[shorter]:
                shorter -= 1
            wanted[length] -= 2
            wanted[length - 1] += 1
            wanted[shorter + 1] += 2
            wanted[shorter] -= 1
    longest = MAX_LENGTH
    while not wanted[longest]:
        longest -= 1
    wanted[longest] -= 1
    for length in range(1, MAX_LENGTH + 1):
        counts[length - 1] = wanted[length]


@kernel
def assign_codes(histogram: np.ndarray, counts: np.ndarray, symbols: np.ndarray, codes: np.ndarray) -> int:
    """Gives each symbol its code (annex C).

    Args:
        histogram, counts, symbols: see `optimal_table`.
        codes: uint32 (256,), filled: code << 8 | bits of the code.

    Returns:
        Bits of all codes and of what stands behind them; a symbol's lower half says how many bits that is.
    """
    code, rank, num_bits = 0, 0, 0
    for length in range(1, MAX_LENGTH + 1):
        for _ in range(counts[length - 1]):
            symbol = symbols[rank]
            codes[symbol] = code << 8 | length
            num_bits += histogram[symbol] * (length + (symbol & 15))
            code, rank = code + 1, rank + 1
        code <<= 1
    return num_bits
