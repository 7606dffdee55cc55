"""Lookups that give the length of several AC symbols at once, for a scan that needs no coefficients.

An entry is like one of `roc.decoder.jpeg_tables`, without a value: bits (low byte), coefficients to go forward (next
byte), 0 if not even one code fits. Photographs have two symbols in an entry on average.
"""

from __future__ import annotations

import numpy as np

from fixres.pipelines.roc.decoder.entropy import LAST
from fixres.pipelines.roc.decoder.jpeg_tables import END_OF_BLOCK, LOOKUP_BITS, LOOKUP_SIZE
from fixres.pipelines.runtime.numba_cache import inlined, kernel

NUM_LOOKUPS = 4  # as many as `Tables.lookup` has; those of DC tables are not used


@kernel
def fill_lookups(single: np.ndarray, several: np.ndarray) -> None:
    """Fills the lookups of both AC tables.

    Args:
        single: `Tables.lookup`.
        several: int32 (4 * 1024,), filled.
    """
    for table in range(1, NUM_LOOKUPS, 2):
        start = table * LOOKUP_SIZE
        for prefix in range(LOOKUP_SIZE):
            used, forward = 0, 0
            while used < LOOKUP_BITS and forward < LAST:
                entry = np.int64(single[start + ((prefix << used) & (LOOKUP_SIZE - 1))])
                code, length, step = entry & 255, entry & 255, (entry >> 8) & 255
                if length == 0:  # only the code is known, not how many of the prefix's bits the value would take
                    code, length, step = entry >> 16, (entry >> 16) + (step & 15), (step >> 4) + 1
                if code == 0 or code > LOOKUP_BITS - used:
                    break
                used, forward = used + length, forward + step
            several[start + prefix] = forward << 8 | used


@inlined
def fits(entry: int, ahead: int) -> bool:
    """Whether all symbols of an entry belong to the block, if they lead to coefficient `ahead`."""
    return entry & 255 != 0 and ((ahead & (END_OF_BLOCK - 1)) < LAST or ahead == LAST)
