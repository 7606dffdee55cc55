"""What the trunk gives for every image, evaluated once and kept, so that further epochs run the tail alone.

The order of an epoch is the loader's, asked for without reading, so an epoch from the cache has the batches that one
from the images would have. Processes that train together evaluate a part of the images each, and read all rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from fixres.config.recipe import FinetuneConfig
from fixres.distributed.process_group import all_gather, num_processes, wait_for_all
from fixres.finetuning.row_store import make_rows, size_text
from fixres.finetuning.split_network import Split
from fixres.models.precision import Precision
from fixres.observability.console import bar
from pipelines.spec import Batch, Counters, InputError, Loader


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

    def __init__(self, loader: Loader, num_values: int, config: FinetuneConfig) -> None:
        self._loader, self._num_values = loader, num_values
        self._rows, self.where, self._writes = make_rows((loader.num_samples, num_values), config)
        self.num_bytes = self._rows.nbytes
        self._labels = np.empty(loader.num_samples, np.int64)
        self.counters = Counters()
        self.resolution, self.batch_size = loader.resolution, loader.batch_size
        self.num_samples, self.classes = loader.num_samples, loader.classes

    def fill(self, halves: Split, normalize: nn.Module, images: Loader, precision: Precision) -> tuple[float, float]:
        """Evaluates the trunk on every image once.

        Args:
            halves: whose trunk is evaluated.
            normalize: uint8 NHWC batches to its input.
            images: every image once over all processes, in stored order, as every epoch sees it.
            precision: number format and device.

        Returns:
            Seconds in all, and seconds of waiting for data.

        Raises:
            InputError: a value does not fit the number format.
        """
        start, waited, done = time.perf_counter(), images.counters.wait_seconds, 0
        with torch.inference_mode(), bar(self.num_samples, "finetune: frozen layers") as shown:
            for batch in images:
                # A step's samples lie one after another, split over the processes by rank.
                for values, labels in all_gather(self._evaluated(halves, normalize, batch, precision)):
                    part = slice(done, done + len(labels))
                    self._put(part, values, labels)
                    done = part.stop
                shown.update(len(batch.labels) * num_processes())
        assert done == self.num_samples, f"the loader gave {done} of {self.num_samples} images"
        wait_for_all()  # rows are there before anybody reads them
        return time.perf_counter() - start, images.counters.wait_seconds - waited

    def _evaluated(
        self, halves: Split, normalize: nn.Module, batch: Batch, precision: Precision
    ) -> tuple[np.ndarray, np.ndarray]:
        """(B, F) in the cache's number format, and int64 (B,)."""
        dtype, labels = self._rows.dtype, batch.labels.cpu().numpy()
        if not len(labels):  # nothing of a short last batch is left for this process
            return np.empty((0, self._num_values), dtype), labels
        with precision.autocast():
            rows = halves.trunk(normalize(batch.images.to(precision.device, non_blocking=True)))
        values = rows.float().cpu().numpy()
        if np.abs(values).max(initial=0) > np.finfo(dtype).max:
            raise InputError(
                "finetune.cache_dtype=fp16 cannot hold a value of the frozen layers; use finetune.cache_dtype=fp32"
            )
        return values.astype(dtype), labels

    def _put(self, part: slice, values: np.ndarray, labels: np.ndarray) -> None:
        self._labels[part] = labels
        if self._writes:
            self._rows[part] = values

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


def description(cache: FeatureCache, num_values: int) -> str:
    """One line: what is kept, how much, where."""
    return (
        f"frozen layers are evaluated once: {cache.num_samples} rows of {num_values} values, "
        f"{size_text(cache.num_bytes)} {cache.where}"
    )
