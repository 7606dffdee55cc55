"""PyTorch Lightning: a data module of crops, and a callback that changes their resolution between epochs.

Needs the extra `lightning`: `pip install 'roc-fixres[lightning]'`.

Example:
    >>> from fixres.lightning import CropDataModule, ProgressiveResolution
    >>> data = CropDataModule("imagenet", resolution=128, batch_size=256, test_resolution=224)
    >>> trainer = lightning.Trainer(max_epochs=16, use_distributed_sampler=False,
    ...                             callbacks=[ProgressiveResolution([(0, 128), (12, 160)])])
    >>> trainer.fit(module, data)
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning

from fixres.api.calls import checked
from fixres.api.loader import Loader
from fixres.api.splits import split_path
from fixres.pipelines.spec import InputError, check_resolution


class CropDataModule(lightning.LightningDataModule):
    """Training and validation loaders (`fixres.Loader`) of a folder that holds both splits.

    Lightning saves and restores the position within an epoch, because the loaders have `state_dict`. Pass
    `use_distributed_sampler=False` to the Trainer: the loaders divide the data among processes by themselves.

    Args:
        path: a folder with `train.beton` and `val.beton`, or with `train/` and `val/`.
        resolution: side of the training crops in pixels.
        batch_size: images per batch of a process.
        test_resolution: side of the validation crops in pixels; `resolution` by default.
        device: where batches arrive. "cpu" by default: Lightning moves them.
        **options: of `fixres.Loader`, for both splits: `engine`, `num_workers`, `seed`, `mean`, `std`, and so on.

    Raises:
        InputError: a missing split, or a value that cannot be used.
    """

    @checked
    def __init__(
        self,
        path: str | os.PathLike[str],
        resolution: int,
        batch_size: int,
        *,
        test_resolution: int | None = None,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__()
        self.path, self.batch_size, self.options = Path(path), batch_size, {"device": device} | options
        self.resolution = check_resolution(resolution)
        self.test_resolution = check_resolution(resolution if test_resolution is None else test_resolution)
        self._opened: dict[bool, Loader] = {}
        for train in (True, False):
            split_path(self.path, train)

    @checked
    def set_resolution(self, resolution: int) -> None:
        """Sets the side of the training crops in pixels, from the next epoch on."""
        self.resolution = check_resolution(resolution)
        if True in self._opened:
            self._opened[True].set_resolution(resolution)

    def train_dataloader(self) -> Loader:
        """Random crops in random order; each iteration is a new epoch."""
        return self._loader(True)

    def val_dataloader(self) -> Loader:
        """Center crops of all validation images."""
        return self._loader(False)

    def _loader(self, train: bool) -> Loader:
        if train not in self._opened:
            resolution = self.resolution if train else self.test_resolution
            self._opened[train] = Loader(self.path, resolution, self.batch_size, train=train, **self.options)
        return self._opened[train]

    def teardown(self, stage: str) -> None:  # noqa: ARG002 (Lightning's signature)
        """Ends workers when the Trainer has finished."""
        for loader in self._opened.values():
            loader.close()
        self._opened.clear()


class ProgressiveResolution(lightning.Callback):
    """Changes the resolution of the training crops at the start of an epoch.

    Works with a data module or a training loader that has `set_resolution`, such as `CropDataModule`, `fixres.Loader`,
    or a `DataLoader` whose data set is a `fixres.CropDataset`.

    Args:
        points: (epoch, resolution) pairs; a resolution is used from its epoch on. The first epoch must be 0.

    Raises:
        InputError: points whose epochs do not begin with 0 and increase, or an unsupported resolution.
    """

    @checked
    def __init__(self, points: Sequence[tuple[int, int]]) -> None:
        self._epochs = [epoch for epoch, _ in points]
        self._resolutions = [check_resolution(resolution) for _, resolution in points]
        if self._epochs != sorted(set(self._epochs)) or self._epochs[:1] != [0]:
            raise InputError(f"points={list(points)} must begin with epoch 0, and epochs must increase")

    def resolution(self, epoch: int) -> int:
        """Side in pixels of the crops of an epoch."""
        return self._resolutions[bisect.bisect_right(self._epochs, epoch) - 1]

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002 (Lightning's)
        """The first epoch's loader is iterated before its start is announced."""
        self._set(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:  # noqa: ARG002 (Lightning's)
        """Sets the resolution of the epoch."""
        self._set(trainer)

    def _set(self, trainer: lightning.Trainer) -> None:
        loader = (
            trainer.fit_loop._data_source.instance if trainer.train_dataloader is None else trainer.train_dataloader
        )
        for owner in (getattr(trainer, "datamodule", None), loader, getattr(loader, "dataset", None)):
            if hasattr(owner, "set_resolution"):
                owner.set_resolution(self.resolution(trainer.current_epoch))
                return
        raise InputError("ProgressiveResolution needs a loader, data set or data module with set_resolution")
