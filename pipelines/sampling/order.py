"""The batches of each rank: a pure function of (seed, epoch), resumable at any sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fixres.pipelines.sampling.philox import STREAM_ORDER, random_words
from fixres.pipelines.spec import InputError, LoaderConfig


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


def num_batches(config: LoaderConfig, num_samples: int) -> int:
    """Batches of each rank in an epoch. All ranks have the same number, so that collective operations match."""
    global_batch = config.batch_size * config.world_size
    count = num_samples // global_batch if config.drop_last else -(-num_samples // global_batch)
    if count == 0:
        raise InputError(
            f"{config.path}: {num_samples} samples do not fill one global batch of {global_batch}; lower batch_size"
            " (in recipes optim.batch_size)"
        )
    return count


def batches(config: LoaderConfig, num_samples: int, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
    """Yields this rank's batches of indices, starting at the global position `start`.

    A step's samples are order[p : p + batch_size * world_size], split evenly over the ranks. They do not depend on the
    number of ranks, so a run can be resumed with another number. Without `drop_last` each index comes once over all
    ranks, and the last batches may be short or empty.
    """
    order = epoch_order(num_samples, config.seed, epoch, config.shuffle)
    global_batch = config.batch_size * config.world_size
    num_batches(config, num_samples)
    for position in range(start, num_samples, global_batch):
        step = order[position : position + global_batch]
        if len(step) < global_batch and config.drop_last:
            return
        yield np.array_split(step, config.world_size)[config.rank]
