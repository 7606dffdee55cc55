"""Labelled pictures of ImageNet's classes as pixels or features in memory, and their folds for cross-validation."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import fixres
from fixres.models.classes import match_classes
from fixres.pipelines.datasets.fingerprints import short_digest
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import Batch, Counters, InputError

NUM_FOLDS = 5
_FILE = re.compile(r"(n\d{8})_.+\.(jpe?g|png)", re.IGNORECASE)  # n01440764_tench.JPEG


class Rows:
    """A loader of tensors in memory: uint8 images NHWC, or float features (N, F), each epoch in another order.

    Args:
        values: of all pictures.
        labels: int64 (N,).
        chosen: int64, the pictures to deliver.
        resolution: of the images, in pixels.
        batch_size: rows of a batch.
        shuffle: random order without the short last batch; else the order of `chosen`, with it.
        seed: of the order.
    """

    def __init__(
        self, values: Tensor, labels: Tensor, chosen: np.ndarray, resolution: int, *, batch_size: int = 64,
        shuffle: bool = False, seed: int = 0,
    ) -> None:  # fmt: skip
        self._values, self._labels, self._chosen = values, labels, chosen
        self._shuffle, self._seed, self._epoch = shuffle, seed, 0
        self.resolution, self.num_samples, self.counters = resolution, len(chosen), Counters()
        self.batch_size = min(batch_size, len(chosen))

    def __len__(self) -> int:
        return self.num_samples // self.batch_size if self._shuffle else -(-self.num_samples // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next iteration."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Batch]:
        order = self._chosen
        if self._shuffle:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(order)
        for k in range(len(self)):
            indices = torch.from_numpy(order[k * self.batch_size : (k + 1) * self.batch_size])
            yield Batch(self._values[indices], self._labels[indices], indices)


class Pictures:
    """Tested pictures in folds, and further ones that are never tested.

    Args:
        data: folder of class folders named by synset, or of files such as n01440764_tench.JPEG: tested and, fold by
            fold, fine-tuned with.
        more: the same of further pictures, only for fine-tuning; may be None.
        work_dir: for links, where the files are not in class folders.
        seed: of the folds.

    Attributes:
        labels: int64 (N,), ImageNet's class numbers; first those of `data`.
        num_tested: pictures of `data`.
    """

    def __init__(self, data: Path, more: Path | None, work_dir: Path, seed: int = 0) -> None:
        self._folders = [class_folders(path, work_dir) for path in (data, more) if path is not None]
        labels = [_imagenet_labels(folder) for folder in self._folders]
        self.labels, self.num_tested = torch.cat(labels), len(labels[0])
        if self.num_tested < NUM_FOLDS * 2:
            raise InputError(f"{data} has {self.num_tested} pictures; {NUM_FOLDS} folds need at least {2 * NUM_FOLDS}")
        self._order = np.random.default_rng(seed).permutation(self.num_tested)

    @property
    def further(self) -> np.ndarray:
        """The pictures that are never tested; all, if there are none."""
        found = np.arange(self.num_tested, len(self.labels))
        return found if len(found) else np.arange(len(self.labels))

    def fold(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Pictures for fine-tuning and for testing, int64 each: every picture of `data` is tested in one fold."""
        tested = np.sort(self._order[number::NUM_FOLDS])
        return np.setdiff1d(np.arange(len(self.labels)), tested), tested

    def images(self, resolution: int, crop_pct: float, tested_only: bool = False, **loader: str) -> Tensor:
        """uint8 (N, r, r, 3): center crops of the pictures. `loader` are further settings of `fixres.Loader`."""
        folders = self._folders[:1] if tested_only else self._folders
        return torch.cat([_read(folder, resolution, crop_pct, loader) for folder in folders])


def _imagenet_labels(folder: Path) -> Tensor:
    source = open_source(folder)
    outputs = match_classes("the network", None, "imagenet", 1000, source.classes).outputs
    labels = torch.from_numpy(source.labels)
    return labels if outputs is None else outputs.numbers(labels)


def _read(folder: Path, resolution: int, crop_pct: float, settings: dict[str, str]) -> Tensor:
    more = {"train": False, "normalize": False, "engine": "torch", "device": "cpu", "num_workers": 0, **settings}
    with fixres.Loader(folder, resolution, 50, crop_pct=crop_pct, **more) as loader:
        images = [batch[0] for batch in loader]
    return torch.cat(images).permute(0, 2, 3, 1).contiguous()


def class_folders(path: Path, work_dir: Path) -> Path:
    """`path` if it has folders; else a folder with links to its files by the synset in their names."""
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; give labelled pictures of ImageNet's classes")
    if any(one.is_dir() for one in path.iterdir()):
        return path
    named = [(found[1], file) for file in sorted(path.iterdir()) if (found := _FILE.fullmatch(file.name))]
    if not named:
        raise InputError(f"{path} has neither class folders nor files such as n01440764_tench.JPEG")
    target = work_dir / f"{path.name}-{short_digest(str(path.resolve()))}"
    for synset, file in named:
        link = target / synset / file.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(file.resolve())
    return target
