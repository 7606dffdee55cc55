"""Light color jitter on batches, on their device: brightness, contrast, saturation, as in the code of FixRes.

Each image's factors are a function of (seed, epoch, index). torchvision's ColorJitter applies the three in random order
and before the crop; here the order is fixed and the crop is first. At factors of 0.95 to 1.05 neither matters.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fixres.distributed.process_group import num_processes, rank
from fixres.pipelines.spec import Batch, Loader

_GRAY = (0.2989, 0.587, 0.114)  # torchvision's weights of red, green and blue


def factors(amount: float, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """float32 (B, 3), uniform in [1 - amount, 1 + amount]: brightness, contrast, saturation of each image."""
    draws = [
        np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, epoch, i])).random(3) for i in indices.tolist()
    ]
    return (1 + amount * (2 * np.array(draws).reshape(-1, 3) - 1)).astype(np.float32)


def jittered(images: Tensor, by: Tensor) -> Tensor:
    """Changes brightness, contrast, saturation of uint8 (B, H, W, 3) by `factors`; rounds and clips after each."""
    values = images.float()
    brightness, contrast, saturation = (by[:, k].view(-1, 1, 1, 1) for k in range(3))
    values = _clipped(values * brightness)
    values = _clipped(_blended(values, _gray(values).mean((1, 2, 3), keepdim=True), contrast))
    return _clipped(_blended(values, _gray(values), saturation)).to(torch.uint8)


def _blended(values: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return other + factor * (values - other)


def _gray(values: Tensor) -> Tensor:
    """(B, H, W, 1), whole numbers, as torchvision computes them from uint8 images."""
    return (values * values.new_tensor(_GRAY)).sum(-1, keepdim=True).floor()


def _clipped(values: Tensor) -> Tensor:
    return values.clamp(0, 255).floor()


class Jittered:
    """A loader with color jitter (see `factors`), computed on `device`; all else comes from the wrapped loader."""

    def __init__(self, loader: Loader, amount: float, seed: int, device: torch.device) -> None:
        self._loader, self._amount, self._seed, self._device, self._epoch = loader, amount, seed, device, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration delivers."""
        self._epoch = epoch
        self._loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[Batch]:
        done = 0
        for batch in self._loader:
            indices = batch.indices.cpu().numpy()
            # If an engine does not know the indices, positions over all processes take their place.
            first = done * num_processes() + len(indices) * rank()
            indices = np.where(indices < 0, first + np.arange(len(indices)), indices)
            by = torch.from_numpy(factors(self._amount, self._seed, self._epoch, indices)).to(self._device)
            done += len(indices)
            yield batch._replace(images=jittered(batch.images.to(self._device, non_blocking=True), by))
