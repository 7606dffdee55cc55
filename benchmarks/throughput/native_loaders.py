"""Third-party loaders whose crops are made outside Python: TurboLoader, and DALI without a graph."""

from __future__ import annotations

import random
import tarfile
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import torch

from benchmarks.throughput.third_party_base import BOX, ThirdPartyLoader
from fixres.pipelines.spec import LoaderConfig


class TurboLoader(ThirdPartyLoader):
    """Package `turboloader` on one tar file, as in its documentation: crops are float32, normalized, not antialiased.

    Its threads are as many as the process may use; it has no setting for that. It gives no uint8 images from tar files.
    """

    def __init__(self, config: LoaderConfig) -> None:
        super().__init__(config)
        with tarfile.open(config.path) as file:
            folders = [PurePath(name).parent.name for name in file.getnames()]
        names = sorted(set(folders))
        self._labels = torch.tensor([names.index(name) for name in folders])

    def _build(self, resolution: int) -> Any:
        import turboloader

        return turboloader.DataLoader(
            str(self._config.path),
            batch_size=self._config.batch_size,
            num_workers=self._config.num_workers,
            image_size=resolution,
            output_format="pytorch",
            transform=turboloader.ImageNetNormalize(),
            shuffle=True,
            train_aug=True,
            drop_last=True,
        )

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self._loader.set_epoch(epoch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        device = self._config.device
        for images, about in self._loader:
            yield torch.from_numpy(images).to(device), self._labels[torch.as_tensor(about["indices"])].to(device)

    def close(self) -> None:
        if self._loader is not None:
            self._loader.close()
        super().close()


class DynamicDALILoader(ThirdPartyLoader):
    """DALI's dynamic mode: the operators of engine `dali`, called one by one from Python instead of as a graph."""

    def _build(self, resolution: int) -> Any:  # noqa: ARG002 (operators get the size)
        import nvidia.dali.experimental.dynamic as dynamic

        dynamic.set_num_threads(max(1, self._config.num_workers))
        seed = random.getrandbits(31)
        return dynamic.readers.File(file_root=str(self._config.path), random_shuffle=True, seed=seed)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        complete, num = False, self._config.batch_size
        try:
            for files, labels in self._loader.next_epoch(batch_size=num):
                if files.batch_size == num:
                    images = self._crops(files)
                    yield images.to(self._config.device), self._on_host(labels).flatten().to(self._config.device)
            complete = True
        finally:
            if not complete and self._loader is not None:  # an epoch must be read to its end, or the reader made again
                self._loader = self._build(self._resolution)

    def _crops(self, files: Any) -> torch.Tensor:
        """uint8 (B, r, r, 3)."""
        import nvidia.dali.experimental.dynamic as dynamic

        area, ratio = BOX
        images = dynamic.decoders.image_random_crop(files, device="cpu", random_area=area, random_aspect_ratio=ratio)
        images = dynamic.resize(images, size=[self._resolution] * 2)
        return self._on_host(dynamic.flip(images, horizontal=dynamic.random.coin_flip(batch_size=files.batch_size)))

    def _on_host(self, batch: Any) -> torch.Tensor:
        import nvidia.dali.experimental.dynamic as dynamic

        return dynamic.as_tensor(batch).torch()
