"""What scripts ask a `DataLoader` for beside its batches: `loader.sampler` and `loader.batch_sampler`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch.utils.data import Sampler

if TYPE_CHECKING:
    from fixres.api.loader import Loader


class EpochSampler(Sampler[int]):
    """The order of a loader's next epoch in this process, with `set_epoch` as `DistributedSampler` has it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __iter__(self) -> Iterator[int]:
        """Positions in the data set."""
        for batch in self._loader.index_batches():
            yield from batch.tolist()

    def __len__(self) -> int:
        """Images of an epoch in this process."""
        return sum(map(len, self._loader.index_batches()))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the loader's next iteration."""
        self._loader.set_epoch(epoch)


class EpochBatchSampler(Sampler[list[int]]):
    """The batches of a loader's next epoch in this process."""

    def __init__(self, loader: Loader) -> None:
        self._loader, self.sampler = loader, EpochSampler(loader)
        self.batch_size, self.drop_last = loader.batch_size, loader.drop_last

    def __iter__(self) -> Iterator[list[int]]:
        """Positions in the data set, for each batch."""
        for batch in self._loader.index_batches():
            yield batch.tolist()

    def __len__(self) -> int:
        """Batches of an epoch in this process."""
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the loader's next iteration."""
        self.sampler.set_epoch(epoch)
