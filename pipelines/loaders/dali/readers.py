"""The two readers of engine `dali`: which samples a pipeline delivers, in which order."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali import fn, types

from fixres.pipelines.formats.webdataset_reader import TarSource
from fixres.pipelines.loaders.base import MAX_BAD_IN_A_ROW
from fixres.pipelines.loaders.dali import common as dali
from fixres.pipelines.sampling.draws import epoch_order
from fixres.pipelines.sampling.order import batches, num_batches
from fixres.pipelines.sampling.philox import STREAM_DALI_READER
from fixres.pipelines.sources.folder import FilesSource
from fixres.pipelines.spec import InputError, LoaderConfig

_SHUFFLE_BUFFER = 4096  # samples; DALI's default is 1024. At 110 KB each 450 MB, as large as four shards of ours


class Reading(ABC):
    """The rest of an epoch on one rank."""

    num_runs: int  # runs of the pipeline
    num_skipped: int = 0  # first runs whose batches were delivered before and are skipped
    num_empty: int = 0  # empty batches at the end, if this rank gets no sample of a short last step

    @abstractmethod
    def nodes(self) -> tuple[Any, Any]:
        """Graph nodes of the encoded images and of the numbers that `indices` translates."""

    @abstractmethod
    def indices(self, numbers: np.ndarray, run: int) -> np.ndarray:
        """int64: positions in the data set of the samples of run `run`, without padding; may be empty."""

    @abstractmethod
    def suspects(self, run: int) -> np.ndarray:
        """int64: positions in the data set of the samples that run `run` and the runs in flight after it read."""


class FileReading(Reading):
    """`fn.readers.file` over this rank's files in the order of `fixres.pipelines.sampling.order`.

    DALI's own shuffling permutes the list once and then within a buffer. A new list for each epoch takes about as long
    (3 s for 1.28 million files), shuffles everything, and can begin anywhere.
    """

    def __init__(self, source: FilesSource, config: LoaderConfig, epoch: int, start: int, replacements: dict) -> None:
        self._source = source
        self._batches = list(batches(config, len(source), epoch, start))
        order = np.concatenate([*self._batches, np.empty(0, np.int64)])
        self._order = np.array([replacements.get(int(i), int(i)) for i in order], np.int64) if replacements else order
        self._batch_size = config.batch_size
        self.num_runs = sum(1 for part in self._batches if len(part))
        self.num_empty = len(self._batches) - self.num_runs

    def nodes(self) -> tuple[Any, Any]:
        files = [str(self._source.files[i]) for i in self._order]
        return fn.readers.file(files=files, labels=list(range(len(files))), pad_last_batch=True, name="reader")

    def indices(self, numbers: np.ndarray, run: int) -> np.ndarray:
        return self._order[numbers.ravel()[: len(self._batches[run])]]

    def suspects(self, run: int) -> np.ndarray:
        first = run * self._batch_size
        return self._order[first : first + (dali.PREFETCH + 2) * self._batch_size]


class ShardReading(Reading):
    """`fn.readers.webdataset` over shards in an order that changes each epoch, with DALI's shuffle buffer.

    Each rank reads one contiguous part of that order. DALI cannot seek, so a resumed epoch reads and skips the batches
    that were delivered before.
    """

    def __init__(self, source: TarSource, config: LoaderConfig, epoch: int, start: int, replacements: dict) -> None:
        self._source, self._config = source, config
        first, end = (len(source) * k // config.world_size for k in (config.rank, config.rank + 1))
        self._share = end - first  # as DALI divides the shards' samples among ranks
        self.num_runs = num_batches(config, len(source))
        step = config.batch_size * config.world_size
        self.num_skipped = min(-(-start // step), self.num_runs)
        shards = [source.shards[i] for i in epoch_order(len(source.shards), config.seed, epoch, config.shuffle)]
        self._paths = [str(shard) for shard in shards]
        self._indexes = [_checked_index(shard) for shard in shards]
        self._folder = tempfile.TemporaryDirectory(prefix="replacements-") if replacements else None
        if self._folder:
            self._indexes = [_redirect(path, source, replacements, Path(self._folder.name)) for path in self._indexes]
        self._seed = dali.random_seed(config, STREAM_DALI_READER, epoch)

    def nodes(self) -> tuple[Any, Any]:
        return fn.readers.webdataset(
            paths=self._paths,
            index_paths=self._indexes,
            ext=["jpg;jpeg;png", "index"],
            dtypes=[types.UINT8, types.INT64],
            missing_component_behavior="error",
            random_shuffle=self._config.shuffle,
            initial_fill=_SHUFFLE_BUFFER,
            seed=self._seed,
            num_shards=self._config.world_size,
            shard_id=self._config.rank,
            stick_to_shard=True,
            pad_last_batch=True,
            name="reader",
        )

    def indices(self, numbers: np.ndarray, run: int) -> np.ndarray:
        valid = min(max(self._share - run * self._config.batch_size, 0), self._config.batch_size)
        return self._source.positions(numbers.ravel()[:valid])

    def suspects(self, run: int) -> np.ndarray:
        """The samples that a second reader with the same seed delivers, because DALI shuffles by itself."""
        pipeline = dali.build_pipeline(self._config, lambda: (self.nodes()[1],), self._seed)
        delivered = [dali.to_numpy(pipeline.run()[0]) for _ in range(min(run + dali.PREFETCH + 2, self.num_runs))]
        return self._source.positions(np.concatenate([part.ravel() for part in delivered[run:]]))


def plan(source: FilesSource | TarSource, config: LoaderConfig, epoch: int, start: int, replacements: dict) -> Reading:
    """The rest of `epoch` from global position `start` on, with `replacements` (index by bad index)."""
    kind = ShardReading if isinstance(source, TarSource) else FileReading
    return kind(source, config, epoch, start, replacements)


def neighbors(source: FilesSource | TarSource, index: int) -> list[int]:
    """Samples that may replace `index`, nearest first; in shards, those of the same shard."""
    others = [(index + step) % len(source) for step in range(1, len(source))]
    if isinstance(source, TarSource):
        others = [i for i in others if _shard_of(source, i) == _shard_of(source, index)]
    return others[:MAX_BAD_IN_A_ROW]


def _shard_of(source: TarSource, index: int) -> str:
    return source.name(index).rpartition(": ")[0]


def _checked_index(shard: Path) -> str:
    """The path of the shard's index file. It must list the .index members, which DALI delivers as numbers."""
    index = shard.with_suffix(".idx")
    remedy = "write the shards with: fixres convert SOURCE DEST --format webdataset"
    if not index.exists():
        raise InputError(f"{shard} has no index file {index.name}, which engine='dali' needs; {remedy}")
    with open(index) as file:
        file.readline()
        if " index " not in file.readline():
            raise InputError(f"{shard} has no .index members, which engine='dali' needs to identify samples; {remedy}")
    return str(index)


def _redirect(path: str, source: TarSource, replacements: dict[int, int], folder: Path) -> str:
    """A copy of an index file in which bad samples have the lines of their replacements."""
    lines = Path(path).read_text().splitlines()
    place = {line.split(" ")[3].partition(".")[0]: k for k, line in enumerate(lines) if k}
    changed = list(lines)
    for bad, good in replacements.items():
        if source.keys[bad] in place and source.keys[good] in place:
            changed[place[source.keys[bad]]] = lines[place[source.keys[good]]]
    if changed == lines:
        return path
    copy = folder / Path(path).name
    copy.write_text("\n".join(changed) + "\n")
    return str(copy)
