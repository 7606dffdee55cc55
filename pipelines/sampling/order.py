"""The batches of each rank: a pure function of (seed, epoch), resumable at any sample."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fixres.pipelines.sampling.draws import epoch_draws
from fixres.pipelines.spec import InputError, LoaderConfig


def num_batches(config: LoaderConfig, num_samples: int) -> int:
    """Batches of each rank in an epoch of `num_samples`. All have the same number, so that collectives match."""
    global_batch = config.batch_size * config.world_size
    count = num_samples // global_batch if config.drop_last else -(-num_samples // global_batch)
    if count == 0:
        raise InputError(
            f"{config.path}: {num_samples} samples do not fill one global batch of {global_batch}; lower batch_size"
            " (in recipes optim.batch_size)"
        )
    return count


def batches(config: LoaderConfig, num_stored: int, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
    """Yields this rank's batches of draws (`indices_of`), starting at the global position `start`.

    A step's samples are draws[p : p + batch_size * world_size], split evenly over the ranks. They do not depend on the
    number of ranks, so a run can be resumed with another number. Without `drop_last` each draw comes once over all
    ranks, and the last batches may be short or empty.

    Args:
        config: batch size, ranks, subset and weights.
        num_stored: samples of the data set.
        epoch: which epoch.
        start: samples over all ranks that are left out.
    """
    draws = epoch_draws(config, num_stored, epoch)
    global_batch = config.batch_size * config.world_size
    num_batches(config, len(draws))
    for position in range(start, len(draws), global_batch):
        step = draws[position : position + global_batch]
        if len(step) < global_batch and config.drop_last:
            return
        yield np.array_split(step, config.world_size)[config.rank]
