"""torch's DataLoader over samples, with what `fixres.training.trainer.Trainer` needs of a loader."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fixres.distributed.process_group import num_processes, rank
from fixres.pipelines.runtime.data_workers import end_workers, received, start_data_worker
from fixres.pipelines.spec import Batch, Counters, InputError
from fixres.training.rng import mixed
from fixres.transfer.samples import Sample, SampleDataset


class Listed(list):
    """Tensors, or dicts of tensors, of different sizes, which move to a device together."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Listed:
        """A copy on the device."""

        def moved(one: Any) -> Any:
            if isinstance(one, dict):
                return {key: moved(value) for key, value in one.items()}
            return one.to(device, non_blocking=non_blocking)

        return Listed(map(moved, self))


class SampleLoader:
    """Batches of one split in this process. The order is a function of (seed, epoch).

    Args:
        dataset: the samples.
        batch_size: images in a step over all processes; every process gets its part of each batch.
        seed: of the order.
        resolution: pixels, for the metrics.
        num_workers: processes that read; 0 reads in this one.
        shuffle: training: shuffled, without the last short batch. Otherwise each process gets every n-th image.
        collate: makes images and labels of a batch from samples.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        batch_size: int,
        seed: int,
        resolution: int,
        num_workers: int,
        shuffle: bool,
        collate: Callable[[Sequence[Sample]], tuple[Any, Any]],
    ) -> None:
        number = num_processes()
        if batch_size % number:
            raise InputError(f"batches of {batch_size} images do not divide among {number} processes; use {number}")
        self.batch_size, self.num_samples, self.resolution = batch_size // number, len(dataset), resolution
        self.counters = Counters()
        self._seed, self._shuffle, self._epoch, self._position = seed, shuffle, 0, 0
        if shuffle and len(self) == 0:
            raise InputError(f"{len(dataset)} training images are fewer than optim.batch_size={batch_size}; lower it")
        self._folder = dataset.images[0].path.parent
        self._loader = DataLoader(
            dataset,
            batch_sampler=_Planned(self),
            num_workers=num_workers,
            collate_fn=_Collate(collate),
            persistent_workers=num_workers > 0,
            worker_init_fn=start_data_worker,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # or it would draw from torch's own, which seeds the network
        )

    def __len__(self) -> int:
        """Batches of this process in a whole epoch."""
        total = self.batch_size * num_processes()
        return self.num_samples // total if self._shuffle else -(-self.num_samples // total)

    def set_epoch(self, epoch: int, position: int = 0) -> None:
        """Selects the epoch, and how many of its images were used already, over all processes."""
        self._epoch, self._position = epoch, position

    def planned(self) -> list[list[tuple[int, int]]]:
        """The (epoch, index) pairs of this process's batches from the position on."""
        size, number, own = self.batch_size, num_processes(), rank()
        indices = range(self.num_samples)
        if self._shuffle:
            generator = torch.Generator().manual_seed(mixed(self._seed, self._epoch) >> 1)
            indices = torch.randperm(self.num_samples, generator=generator).tolist()
        steps = range(self._position, self.num_samples, size * number)
        batches = [indices[start + own * size : start + (own + 1) * size] for start in steps]
        if self._shuffle:
            batches = batches[: (self.num_samples - self._position) // (size * number)]
        return [[(self._epoch, index) for index in batch] for batch in batches if batch]

    def __iter__(self) -> Iterator[Batch]:
        """The batches from the position on. InputError if an image or its annotation cannot be used."""
        start = time.perf_counter()
        for found in received(self._loader, self._folder, "lower --num-workers or --optim.batch-size"):
            self.counters.wait_seconds += time.perf_counter() - start
            if isinstance(found, InputError):
                raise found
            yield Batch(*found)
            start = time.perf_counter()

    def close(self) -> None:
        """Ends the worker processes."""
        end_workers(self._loader)


class _Planned:
    """The batch sampler of a SampleLoader; its length and content change with the epoch."""

    def __init__(self, loader: SampleLoader) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader.planned())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self._loader.planned())


class _Collate:
    """Batch of samples, or the first InputError among them; picklable, for worker processes."""

    def __init__(self, collate: Callable[[Sequence[Sample]], tuple[Any, Any]]) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[Sample | InputError]) -> tuple[Any, Any, Tensor] | InputError:
        for one in samples:
            if isinstance(one, InputError):
                return one
        images, labels = self._collate(samples)
        return images, labels, torch.tensor([one.index for one in samples])


def listed(samples: Sequence[Sample]) -> tuple[Listed, Listed]:
    """Images and targets of different sizes."""
    return Listed(one.image for one in samples), Listed(one.target for one in samples)


def stacked(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Images uint8 (B, H, W, 3) and masks uint8 (B, H, W) of one size."""
    images = torch.stack([one.image.as_subclass(Tensor) for one in samples])
    return images.permute(0, 2, 3, 1).contiguous(), torch.stack([one.target.as_subclass(Tensor) for one in samples])
