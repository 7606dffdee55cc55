"""What the trunk gives for every image, evaluated once and kept, so that further epochs run the tail alone.

A row for each image, in memory, or in a temporary file if that would be too much. The order of an epoch is the
loader's, asked for without reading, so an epoch from the cache has the batches that one from the images would have.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from fixres.config import FixConfig
from fixres.hardware import Precision
from fixres.trunk import Split
from pipelines.spec import Batch, Counters, InputError, Loader

_GIB = 2**30
_SPARE = 0.95  # of the disk's free space


class NoRoomError(Exception):
    """The rows do not fit anywhere; the text is a reason that completes "because"."""


class FeatureCache:
    """The rows of a data set, and a loader of them for `Trainer`: `Batch.images` are rows (B, F).

    Args:
        loader: whose order, batch size and resolution are used; it is not iterated over.
        num_values: F.
        config: number format and limits.

    Attributes:
        num_bytes: what the rows take.
        where: "in memory", or the folder of the temporary file, for people.

    Raises:
        NoRoomError: more than the memory limit and more than the disk has.
    """

    def __init__(self, loader: Loader, num_values: int, config: FixConfig) -> None:
        self._loader = loader
        dtype = np.dtype(np.float16 if config.cache_dtype == "fp16" else np.float32)
        shape = (loader.num_samples, num_values)
        self.num_bytes = shape[0] * shape[1] * dtype.itemsize
        if self.num_bytes <= config.cache_memory * _GIB:
            self._rows, self.where = np.empty(shape, dtype), "in memory"
        else:
            self._rows, self.where = _in_file(config.cache_dir, shape, dtype, self.num_bytes)
        self._labels = np.empty(loader.num_samples, np.int64)
        self.counters = Counters()
        self.resolution, self.batch_size = loader.resolution, loader.batch_size
        self.num_samples, self.classes = loader.num_samples, loader.classes

    def fill(self, halves: Split, normalise: nn.Module, images: Loader, precision: Precision) -> tuple[float, float]:
        """Evaluates the trunk on every image once.

        Args:
            halves: whose trunk is evaluated.
            normalise: uint8 NHWC batches to its input.
            images: every image once, in stored order, as every epoch sees it.
            precision: number format and device.

        Returns:
            Seconds in all, and seconds of waiting for data.

        Raises:
            InputError: a value does not fit the number format.
        """
        start, waited, done = time.perf_counter(), images.counters.wait_seconds, 0
        with torch.inference_mode(), tqdm(total=self.num_samples, desc="fix: frozen layers", unit="img", leave=False,
                                          mininterval=0.5, disable=None) as bar:  # fmt: skip
            for batch in images:
                with precision.autocast():
                    rows = halves.trunk(normalise(batch.images.to(precision.device, non_blocking=True)))
                part = slice(done, done + len(batch.labels))
                self._put(part, rows, batch.labels)
                done = part.stop
                bar.update(len(batch.labels))
        assert done == self.num_samples, f"the loader gave {done} of {self.num_samples} images"
        return time.perf_counter() - start, images.counters.wait_seconds - waited

    def _put(self, part: slice, rows: Tensor, labels: Tensor) -> None:
        values = rows.float().cpu().numpy()
        if np.abs(values).max(initial=0) > np.finfo(self._rows.dtype).max:
            raise InputError("fix.cache_dtype=fp16 cannot hold a value of the frozen layers; use fix.cache_dtype=fp32")
        self._rows[part], self._labels[part] = values, labels.cpu().numpy()

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for indices in self._loader.index_batches():
            rows, labels = torch.from_numpy(self._rows[indices]), torch.from_numpy(self._labels[indices])
            self.counters.num_images += len(indices)
            yield Batch(rows, labels, torch.from_numpy(indices))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch whose order the next iteration has."""
        self._loader.set_epoch(epoch)


def _in_file(folder: Path | None, shape: tuple[int, int], dtype: np.dtype, num_bytes: int) -> tuple[np.ndarray, str]:
    """An array in a file without a name, so that it goes when the process does."""
    place = Path(folder or tempfile.gettempdir())
    if not place.is_dir():
        raise InputError(f"fix.cache_dir={place} is no folder; make it, or choose another")
    free = shutil.disk_usage(place).free
    if num_bytes > _SPARE * free:
        raise NoRoomError(f"they would take {_size(num_bytes)}, and {place} has {_size(free)} free")
    with tempfile.TemporaryFile(dir=place) as file:
        # Reserved now: a disk that fills up under a mapped file kills the process instead of raising.
        os.posix_fallocate(file.fileno(), 0, num_bytes)
        return np.memmap(file, dtype, "r+", shape=shape), f"in a temporary file in {place}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.1f} GiB" if num_bytes >= _GIB else f"{num_bytes / 2**20:.1f} MiB"


def description(cache: FeatureCache, num_values: int) -> str:
    """One line: what is kept, how much, where."""
    return (
        f"frozen layers are evaluated once: {cache.num_samples} rows of {num_values} values, "
        f"{_size(cache.num_bytes)} {cache.where}"
    )
