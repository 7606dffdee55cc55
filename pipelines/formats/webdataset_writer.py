"""Writes webdataset tar shards with index files for DALI's reader.

A folder of shards holds

* `shard-000000.tar`, ...: for each sample the members `KEY.jpg`, `KEY.cls` (class number in decimal digits) and
  `KEY.index` (int64, little-endian). KEY is the sample's index in the converted source with nine digits, and
  `KEY.index` is the same number, because DALI cannot return keys.
* `shard-000000.idx`, ...: positions of the members, in the format of DALI's `wds2idx`, version 1.2.
* `classes.json`: {"classes": [names in label order], "num_samples": N}.

Equal samples give equal bytes: times, owners and modes in the tar headers are constant.
"""

from __future__ import annotations

import io
import os
import tarfile
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fixres.pipelines.formats.samples import EncodedSample, Entry, verify
from fixres.pipelines.formats.webdataset_reader import INDEX_VERSION, TABLE_NAME, TarSource
from fixres.pipelines.runtime.atomic_files import atomic_folder, open_own, write_json
from fixres.pipelines.spec import InputError

_BLOCK = 512  # tar's unit; a plain member's data follows one header block
MAX_SAMPLES = 10**9  # nine digits
SAMPLES_PER_SHARD = 1000


def write_shards(
    folder: Path,
    samples: Iterable[EncodedSample],
    classes: Sequence[str],
    samples_per_shard: int = SAMPLES_PER_SHARD,
    overwrite: bool = False,
) -> int:
    """Writes a folder of shards atomically, after reading it back.

    DALI shuffles within a buffer only, so samples should come in random order. `TarSource` restores the order of
    their `index`.

    Args:
        folder: the folder's final name.
        samples: consumed one at a time; if they raise an exception, no folder is left.
        classes: class names in label order.
        samples_per_shard: 1000 ImageNet images make about 60 MB.
        overwrite: replace an existing folder.

    Returns:
        Number of samples written.
    """
    with (
        atomic_folder(folder, overwrite, "*.idx") as partial,
        ShardWriter(partial, classes, samples_per_shard) as writer,
    ):
        for sample in samples:
            writer.write(sample)
        writer.finish()
        writer.verify()
    return writer.num_samples


class ShardWriter:
    """Streams samples to shards in `folder`; `write_shards` adds the temporary name and the verification.

    Attributes:
        num_samples: samples written so far, those of `keep` included.
    """

    def __init__(
        self,
        folder: Path,
        classes: Sequence[str],
        samples_per_shard: int = SAMPLES_PER_SHARD,
        about: Mapping[str, object] | None = None,
        keep: Sequence[Entry] = (),
    ) -> None:
        """Opens the folder, which must exist.

        Args:
            folder, classes, samples_per_shard: as in `write_shards`.
            about: further entries of `classes.json`.
            keep: samples that an earlier process has written, in whole shards (`num_in_whole_shards`).
        """
        if samples_per_shard < 1:
            raise InputError(f"samples_per_shard={samples_per_shard} must be at least 1")
        self._folder, self._per_shard = folder, samples_per_shard
        self._table = {"classes": list(classes)} | dict(about or {})
        self._facts = array("q")  # index, label, height, width of each sample: 32 bytes where tuples take 150
        self._shard: _Shard | None = None
        self._take_over(keep)

    @property
    def num_samples(self) -> int:
        return len(self._facts) // 4

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shard is not None:
            self._shard.file.close()

    def _take_over(self, keep: Sequence[Entry]) -> None:
        for entry in keep:
            if not entry.is_bad:
                self._facts.extend((entry.index, entry.label, entry.height, entry.width))
        whole, rest = divmod(self.num_samples, self._per_shard)
        assert rest == 0
        kept = {f"{_stem(number)}{ending}" for number in range(whole) for ending in (".tar", ".idx")}
        there = {path.name for path in self._folder.iterdir()}
        if kept - there:
            raise InputError(
                f"{self._folder / min(kept - there)} does not exist, but its journal counts it; remove the folder and"
                " run the same command again"
            )
        for name in there - kept:
            (self._folder / name).unlink()

    def write(self, sample: EncodedSample) -> None:
        """Appends one sample."""
        if self._shard is None:
            self._shard = _Shard(self._folder / _stem(self.num_samples // self._per_shard))
        self._shard.write(sample)
        self._facts.extend((sample.index, sample.label, sample.height, sample.width))
        if self.num_samples % self._per_shard == 0:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._shard is not None:
            self._shard.close()
            self._shard = None

    def sync(self) -> None:
        """Does nothing: finished shards are synced when they are closed, and an open one is not kept."""

    def finish(self) -> None:
        """Closes the last shard and writes `classes.json`; the folder is complete afterwards."""
        if not self._facts:
            raise InputError(f"no samples to write to {self._folder}")
        self._close_shard()
        table = self._table | {"num_samples": self.num_samples}
        write_json(self._folder / TABLE_NAME, table)

    def verify(self) -> None:
        """Reads the finished folder back."""
        facts = np.array(self._facts).reshape(-1, 4)
        in_order = facts[np.argsort(facts[:, 0])]
        verify(TarSource(self._folder), in_order[:, 1], in_order[:, 2:])


def num_in_whole_shards(entries: Sequence[Entry], samples_per_shard: int = SAMPLES_PER_SHARD) -> int:
    """Number of first entries that fill whole shards; only those are safe on disk."""
    good = [number for number, entry in enumerate(entries) if not entry.is_bad]
    whole = len(good) // samples_per_shard * samples_per_shard
    return good[whole - 1] + 1 if whole else 0


def _stem(number: int) -> str:
    return f"shard-{number:06d}"


class _Shard:
    """One tar file, and the lines of its index."""

    def __init__(self, stem: Path) -> None:
        self._index = stem.with_suffix(".idx")
        self._lines: list[str] = []
        self.file = open(stem.with_suffix(".tar"), "wb", opener=open_own)
        self._tar = tarfile.open(fileobj=self.file, mode="w", format=tarfile.USTAR_FORMAT)

    def write(self, sample: EncodedSample) -> None:
        members = {
            "jpg": sample.image,
            "cls": str(sample.label).encode(),
            "index": sample.index.to_bytes(8, "little"),
        }
        key = f"{sample.index:09d}"
        self._lines.append(" ".join(_add(self._tar, self.file, key, ending, data) for ending, data in members.items()))

    def close(self) -> None:
        """Completes the tar file, writes the index and syncs both."""
        self._tar.close()
        with self.file:
            self.file.flush()
            os.fsync(self.file.fileno())
        with open(self._index, "w", opener=open_own) as index:
            index.write("\n".join([f"{INDEX_VERSION} {len(self._lines)}", *self._lines]) + "\n")
            index.flush()
            os.fsync(index.fileno())


def _add(tar: tarfile.TarFile, file: io.BufferedWriter, key: str, ending: str, data: bytes) -> str:
    """Appends a member; returns its entry in the index: ending, position, size, name."""
    member = tarfile.TarInfo(f"{key}.{ending}")
    member.size = len(data)
    member.mode = 0o644
    position = file.tell() + _BLOCK
    tar.addfile(member, io.BytesIO(data))
    return f"{ending} {position} {len(data)} {member.name}"
