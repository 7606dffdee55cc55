"""Which samples an epoch draws: the whole data set, a subset, or weighted draws with replacement."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from fixres.pipelines.sampling.philox import STREAM_ORDER, STREAM_WEIGHTS, random_words
from fixres.pipelines.spec import InputError, LoaderConfig

_INDEX_BITS = 32


def indices_of(draws: np.ndarray) -> np.ndarray:
    """int64 (N,): positions in the data set.

    Args:
        draws: int64 (N,), as `batches` yields them: in the low 32 bits the position, in the high ones how often the
            epoch has drawn the same sample before. Draws key the random numbers of crops, so that a sample that is
            drawn again gets another crop. Without `indices` and `weights` they are the positions themselves.
    """
    return np.asarray(draws, np.int64) & ((1 << _INDEX_BITS) - 1)


def epoch_size(config: LoaderConfig, num_stored: int) -> int:
    """Samples of an epoch over all ranks.

    Raises:
        InputError: `indices` or `weights` do not fit a data set of `num_stored` samples.
    """
    if config.indices is not None:
        _check_indices(config.indices, num_stored)
    num = num_stored if config.indices is None else len(config.indices)
    if config.weights is not None:
        _check_weights(config.weights, num)
    return num


def _check_indices(indices: np.ndarray, num_stored: int) -> None:
    if indices.ndim != 1:
        raise InputError(f"indices has the shape {indices.shape}; give a list of positions in the data set")
    if indices.dtype != np.int64 or not indices.size:
        raise InputError(f"indices={indices!r:.60} must be a list of positions in the data set, at least one")
    for bad in indices[(indices < 0) | (indices >= num_stored)][:1]:
        raise InputError(f"indices has {bad}, but the data set's positions are 0 to {num_stored - 1}; leave it out")


def _check_weights(weights: np.ndarray, num: int) -> None:
    if weights.ndim != 1:
        raise InputError(f"weights has the shape {weights.shape}; give a list of {num} numbers, one for each sample")
    if len(weights) != num:
        raise InputError(f"weights has {weights.size} values, but there are {num} samples to draw from; give each one")
    for bad in weights[~((weights >= 0) & (weights < np.inf))][:1]:
        raise InputError(f"weights has {bad}; they must be finite and not negative")
    if not 0 < weights.sum() < np.inf:
        raise InputError(f"weights has the sum {weights.sum()}; it must be finite and above 0")


def subset_checksum(config: LoaderConfig) -> int | None:
    """A number that tells subsets, weights and repeats apart; None if there are none."""
    given = [array for array in (config.indices, config.weights) if array is not None]
    parts = [array.dtype.char.encode() + array.tobytes() for array in given]
    parts += [] if config.aug_repeats == 1 else [str(config.aug_repeats).encode()]
    return zlib.crc32(b"".join(parts)) if parts else None


def drawable(config: LoaderConfig) -> np.ndarray | None:
    """int64, increasing: the samples that an epoch may contain; None for the whole data set."""
    if config.weights is None:
        return None if config.indices is None else np.unique(config.indices)
    positive = np.flatnonzero(config.weights)
    return positive if config.indices is None else np.unique(config.indices[positive])


def candidates(draw: int, num_stored: int, allowed: np.ndarray | None) -> Iterator[int]:
    """A draw, then the samples that may replace it: those that follow it in the data set, the first after the last.

    Args:
        draw: see `indices_of`.
        num_stored: samples of the data set.
        allowed: from `drawable`.
    """
    yield draw
    num = num_stored if allowed is None else len(allowed)
    index = int(indices_of(draw))
    place = index if allowed is None else int(np.searchsorted(allowed, index))
    for step in range(1, num):
        follower = (place + step) % num
        yield follower if allowed is None else int(allowed[follower])


def epoch_order(num_samples: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """int64 (num_samples,): the order of an epoch over all ranks.

    Samples are sorted by a random key, because a library's shuffle may differ between versions. 1.28 million samples
    take 0.2 s.
    """
    index = np.arange(num_samples, dtype=np.int64)
    if not shuffle:
        return index
    words = random_words(seed, STREAM_ORDER, epoch, index, 2)
    return np.argsort((words[:, 0] << np.uint64(32)) | words[:, 1], kind="stable")


def epoch_draws(config: LoaderConfig, num_stored: int, epoch: int) -> np.ndarray:
    """int64 (n,): the draws of an epoch over all ranks, see `indices_of`."""
    num = num_stored if config.indices is None else len(config.indices)
    if config.weights is None:
        chosen = epoch_order(num, config.seed, epoch, config.shuffle)
    else:
        chosen = _weighted(config.weights, config.seed, epoch)
    if config.indices is not None:
        chosen = config.indices[chosen]
    if config.aug_repeats > 1:
        chosen = _repeated(chosen, config.aug_repeats, config.batch_size * config.world_size)
    is_order = config.weights is None and config.indices is None and config.aug_repeats == 1
    return chosen if is_order else _numbered(chosen)


def _repeated(chosen: np.ndarray, num_repeats: int, batch_size: int) -> np.ndarray:
    """Repeated augmentation (arXiv 1901.09335): each batch over all ranks has its first samples several times.

    As in timm's RepeatAugSampler an epoch is as long as without, so it has fewer images; the copies of an image are
    in one batch, on different ranks if there are enough.
    """
    num_different = -(-batch_size // num_repeats)
    batch, slot = np.divmod(np.arange(len(chosen)), batch_size)
    return chosen[batch * num_different + slot % num_different]


def _weighted(weights: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """As many draws with replacement as there are weights: torch's WeightedRandomSampler."""
    words = random_words(seed, STREAM_WEIGHTS, epoch, np.arange(len(weights)), 2)
    uniform = ((words[:, 0] << np.uint64(21)) ^ (words[:, 1] >> np.uint64(11))) * 2.0**-53
    total = np.cumsum(weights)
    return np.searchsorted(total / total[-1], uniform, side="right")


def _numbered(chosen: np.ndarray) -> np.ndarray:
    """Adds to each sample how often it came before."""
    order = np.argsort(chosen, kind="stable")
    place = np.arange(len(order))
    is_first = np.diff(chosen[order], prepend=-1) != 0
    repeats = np.empty_like(place)
    repeats[order] = place - np.maximum.accumulate(np.where(is_first, place, 0))
    return chosen | repeats << _INDEX_BITS
