"""Counter-based random numbers: pure functions of (seed, epoch, index), the same on any number of workers.

Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), vectorized over counters.
NumPy's own Philox draws one stream per object; constructing one per image takes 20 times as long.
"""

from __future__ import annotations

import numpy as np

# One stream for each use, so that no two uses share numbers. A changed number changes every seeded run.
STREAM_CROP = 1
STREAM_FLIP = 2
STREAM_ORDER = 3
STREAM_SPLIT = 4  # also STREAM_DALI_READER; a split is drawn at epoch 0 with the data's seed
STREAM_DALI_READER = 4
STREAM_DALI_PIPELINE = 5
STREAM_SHIFT = 6
STREAM_VIEWS = 7  # seeds of the second and further crops of an image
STREAM_INTERPOLATION = 8
STREAM_WEIGHTS = 9  # which samples are drawn with replacement
MAX_EPOCH = 2**32 - 1  # one counter word carries the epoch

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10


def philox4x32(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox4x32.

    Args:
        counter: uint64 (..., 4), each word in [0, 2**32).
        key: two words in [0, 2**32).

    Returns:
        uint64 (..., 4), each word uniform in [0, 2**32).
    """
    c0, c1, c2, c3 = (counter[..., i] for i in range(4))
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product_1 >> _SHIFT) ^ c1 ^ np.uint64(k0),
            product_1 & _MASK,
            (product_0 >> _SHIFT) ^ c3 ^ np.uint64(k1),
            product_0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL_0) & 0xFFFFFFFF, (k1 + _WEYL_1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1)


def random_words(seed: int, stream: int, epoch: int, index: np.ndarray, num: int) -> np.ndarray:
    """`num` random 32-bit words for each index.

    Args:
        seed: the run's seed, in [0, 2**64).
        stream: one of the STREAM_ constants, in [0, 2**8).
        epoch: in [0, 2**32).
        index: integers (N,), in [0, 2**63); their low and high 32 bits are two words of the counter.
        num: words wanted per index, at most 4 * 2**24.

    Returns:
        uint64 (N, num), each in [0, 2**32).
    """
    blocks = -(-num // 4)
    counter = np.empty((len(index), blocks, 4), np.uint64)
    counter[..., 0] = np.arange(blocks, dtype=np.uint64) | np.uint64(stream << 24)
    words = np.asarray(index).astype(np.uint64)[:, None]
    counter[..., 1], counter[..., 3] = words & _MASK, words >> _SHIFT
    counter[..., 2] = np.uint64(epoch)
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    return philox4x32(counter, key).reshape(len(index), blocks * 4)[:, :num]


def uniforms(seed: int, stream: int, epoch: int, index: np.ndarray, num: int) -> np.ndarray:
    """Like `random_words`, as float64 (N, num) in [0, 1)."""
    return random_words(seed, stream, epoch, index, num) * 2.0**-32
