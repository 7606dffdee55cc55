"""What all third-party loaders of the benchmark share."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch

from fixres.pipelines.runtime.process_pool import end_with_parent, main_module_hidden, safe_context
from fixres.pipelines.spec import LoaderConfig

BOX = (0.08, 1), (3 / 4, 4 / 3)
"""Scale and ratio of RandomResizedCrop."""


class ThirdPartyLoader(ABC):
    """A loader that is rebuilt for each resolution."""

    counters = None

    def __init__(self, config: LoaderConfig) -> None:
        self._config, self._loader, self._resolution = config, None, 0

    @abstractmethod
    def _build(self, resolution: int) -> Any:
        """The package's own loader; iterating it gives (images, labels)."""

    def _shuffled(self, data: torch.utils.data.Dataset, **more: Any) -> torch.utils.data.DataLoader:
        """torch's own loader over samples with random access."""
        if self._config.num_workers:  # its default forks this process, where DALI may run
            more["multiprocessing_context"] = safe_context()
        return self._in_workers(data, batch_size=self._config.batch_size, shuffle=True, drop_last=True, **more)

    def _in_workers(self, data: torch.utils.data.Dataset, **options: Any) -> torch.utils.data.DataLoader:
        num = self._config.num_workers
        if num:
            options |= {"persistent_workers": True, "worker_init_fn": end_with_parent}
        return torch.utils.data.DataLoader(data, num_workers=num, **options)

    def _batches(self) -> Iterator[Any]:
        """An epoch of the package's own loader."""
        with main_module_hidden():  # from new workers, as in engine torch
            return iter(self._loader)

    def set_epoch(self, epoch: int) -> None:
        torch.manual_seed(epoch)
        random.seed(epoch)

    def set_resolution(self, resolution: int) -> None:
        if resolution != self._resolution:
            self.close()
            self._loader, self._resolution = self._build(resolution), resolution

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        device = self._config.device
        for images, labels in self._batches():
            yield images.to(device), labels.to(device)

    def close(self) -> None:
        self._loader, self._resolution = None, 0
