"""The backbone's output for every image, computed once and kept, so that each epoch runs the head alone.

An epoch has the loader's order, which is known without reading, so the batches are those of an epoch from
images. Processes that train together compute a part of the rows each and read all of them. The rows are in memory, or
in a temporary file if they are too large. Processes share a file on each machine, written by one of them.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fixres.config.recipe import FinetuneConfig
from fixres.distributed.process_group import all_gather, local_rank, num_processes, wait_for_all
from fixres.models.predictor import Predictor
from fixres.observability.console import bar
from fixres.pipelines.spec import Batch, Counters, InputError, Loader

_GIB = 2**30
_MAX_DISK_SHARE = 0.95  # of the free space


class NoRoomError(Exception):
    """The rows fit neither in memory nor on disk; the text is a reason that completes "because"."""


class FeatureCache:
    """The rows of a data set, and a loader of them for `Trainer`: `Batch.images` are rows (B, F).

    The order, batch size and resolution are those of `loader`, which is not iterated over.

    Raises:
        NoRoomError: the rows exceed the memory limit and the free disk space.
    """

    def __init__(self, loader: Loader, num_values: int, config: FinetuneConfig) -> None:
        self._loader, self._num_values = loader, num_values
        self._rows, self._place, self._writes = _make_rows((loader.num_samples, num_values), config)
        self._labels = np.empty(loader.num_samples, np.int64)
        self.counters = Counters()
        self.resolution, self.batch_size = loader.resolution, loader.batch_size
        self.num_samples, self.classes = loader.num_samples, loader.classes

    def __str__(self) -> str:
        return f"{self.num_samples} rows of {self._num_values} values, {_size_text(self._rows.nbytes)} {self._place}"

    def fill(self, backbone: Predictor, images: Loader) -> tuple[float, float]:
        """Runs the backbone on every image once; returns the seconds in all, and those of waiting for data.

        Args:
            backbone: of the split network.
            images: every image once over all processes, in stored order, as every epoch sees it.
        """
        start, waited, done = time.perf_counter(), images.counters.wait_seconds, 0
        with torch.inference_mode(), bar(self.num_samples, "finetune: frozen layers") as shown:
            for batch in images:
                # A step's samples are consecutive, split over the processes by rank.
                for values, labels in all_gather(self._computed(backbone, batch)):
                    part = slice(done, done + len(labels))
                    self._labels[part] = labels
                    if self._writes:
                        self._rows[part] = values
                    done = part.stop
                shown.update(len(batch.labels) * num_processes())
        assert done == self.num_samples, f"the loader gave {done} of {self.num_samples} images"
        wait_for_all()  # all rows are written before any process reads them
        return time.perf_counter() - start, images.counters.wait_seconds - waited

    def _computed(self, backbone: Predictor, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """(B, F) in the cache's number format, and int64 (B,)."""
        dtype, labels = self._rows.dtype, batch.labels.cpu().numpy()
        if not len(labels):  # a short last batch may have no image for this process
            return np.empty((0, self._num_values), dtype), labels
        values = backbone(batch.images).float().cpu().numpy()
        if np.abs(values).max(initial=0) > np.finfo(dtype).max:
            raise InputError(
                "finetune.cache_dtype=fp16 cannot hold a value of the frozen layers; use finetune.cache_dtype=fp32"
            )
        return values.astype(dtype), labels

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


def _make_rows(shape: tuple[int, int], config: FinetuneConfig) -> tuple[np.ndarray, str, bool]:
    """Uninitialized rows (N, F), their place in words, and whether this process is to write them."""
    dtype = np.dtype(np.float16 if config.cache_dtype == "fp16" else np.float32)
    folder = Path(config.cache_dir or tempfile.gettempdir())
    if num_processes() == 1 and math.prod(shape) * dtype.itemsize <= config.cache_memory * _GIB:
        return np.empty(shape, dtype), "in memory", True
    shared = ", which the processes share" if num_processes() > 1 else ""
    return _mapped(folder, shape, dtype), f"in a temporary file in {folder}{shared}", local_rank() == 0


def _mapped(folder: Path, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Rows in a file that all processes of a machine map. It has no name afterwards and is deleted when they end."""
    machine, reason = Path("/proc/sys/kernel/random/boot_id").read_text(), None
    with ExitStack() as stack:
        name = None
        try:
            if local_rank() == 0:
                name = stack.enter_context(_reserved(folder, math.prod(shape) * dtype.itemsize)).name
        except NoRoomError as error:
            reason = str(error)
        gathered = all_gather((machine, name, reason))
        if reasons := [why for _, _, why in gathered if why is not None]:
            raise NoRoomError(reasons[0])
        path = next(path for where, path, _ in gathered if where == machine and path is not None)
        rows = np.memmap(path, dtype, "r+", shape=shape)
        wait_for_all()  # all have opened it
    return rows


def _reserved(folder: Path, num_bytes: int) -> Any:
    """A temporary file of this size."""
    if not folder.is_dir():
        raise InputError(f"finetune.cache_dir={folder} is not a folder; create it, or choose another")
    free = shutil.disk_usage(folder).free
    if num_bytes > _MAX_DISK_SHARE * free:
        raise NoRoomError(f"they would take {_size_text(num_bytes)}, and {folder} has {_size_text(free)} free")
    file = tempfile.NamedTemporaryFile(prefix="finetune-rows-", dir=folder)
    try:
        # Reserved now: a disk that fills up under a mapped file kills the process instead of raising.
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    except OSError:
        file.close()
        raise
    return file


def _size_text(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.1f} GiB" if num_bytes >= _GIB else f"{num_bytes / 2**20:.1f} MiB"
