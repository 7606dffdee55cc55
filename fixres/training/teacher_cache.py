"""A cache of a teacher's logits on disk, so that the next run over the same batches need not evaluate the teacher.

Crops are functions of (seed, epoch, index), colors and mixing of (seed, epoch, step): another run with the same data
settings, for another student or another rate, sees the same batches. The key of a batch is the digest of its pixels, so
that no setting can be forgotten: a batch that differs in one pixel is a new one.

The file grows batch by batch. Each entry has its length and a checksum. If a killed run left an incomplete entry, the
next run removes it and appends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Literal
from weakref import WeakValueDictionary, finalize

import numpy as np
import torch
from torch import Tensor

from fixres.config.recipe import Recipe, VariantConfig
from fixres.distributed.process_group import num_processes, rank
from fixres.models.state_dicts import weights_digest
from fixres.pipelines.runtime.atomic_files import atomic_file, open_own
from fixres.pipelines.runtime.locks import acquire, release
from fixres.pipelines.spec import InputError, Loader
from fixres.training.losses import Teacher

_log = logging.getLogger(__name__)
_VERSION = 1
_ENTRY = struct.Struct("<32sII")  # digest of the images, number of rows, CRC-32 of the values
_DTYPES = {"fp16": np.dtype("<f2"), "fp32": np.dtype("<f4")}


class CachedTeacher:
    """A teacher with a cache of its logits; called like `losses.Teacher`.

    The first run gets the values in the number format of the cache, so that later runs repeat it to the bit.

    Attributes:
        num_evaluated: batches for which the teacher was evaluated.
        num_cached: batches whose logits were in the store.
    """

    def __init__(self, teacher: Teacher, store: LogitStore) -> None:
        self._teacher, self._store, self.num_evaluated, self.num_cached = teacher, store, 0, 0

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, float32 (B, K), for uint8 (B, H, W, 3); on a GPU the host waits for the images."""
        pixels = images.contiguous().cpu().numpy()
        digest = hashlib.blake2b(pixels, digest_size=32, key=str(pixels.shape).encode()).digest()
        values = self._store.get(digest)
        if values is None:
            self.num_evaluated += 1
            values = self._store.put(digest, self._teacher(images).float().cpu().numpy())
        else:
            self.num_cached += 1
        return torch.from_numpy(values.astype(np.float32)).to(images.device)


class LogitStore:
    """A file of logits by digest. One process at a time uses it.

    Args:
        path: the file; created if it does not exist.
        teacher: digest of everything else that the logits depend on.
        num_classes: K.
        dtype: number format of the values.
    """

    def __init__(self, path: Path, teacher: str, num_classes: int, dtype: Literal["fp16", "fp32"]) -> None:
        self.path, self._num_classes, self._dtype = path, num_classes, _DTYPES[dtype]
        self._entries: dict[bytes, tuple[int, int, int]] = {}  # offset, rows, checksum
        head = json.dumps({"version": _VERSION, "teacher": teacher, "num_classes": num_classes, "dtype": dtype}) + "\n"
        if not path.exists():
            with atomic_file(path) as partial:
                partial.write_text(head)
        # A separate descriptor, which forked workers close: otherwise they would keep the lock of a killed process.
        descriptor = open_own(path, os.O_RDWR)
        self._release_lock = finalize(self, release, descriptor)
        if not acquire(descriptor):
            self._release_lock()
            raise InputError(f"another run is using {path}; wait for it, or give another distill.cache")
        self._file = open(path, "r+b", opener=open_own)
        try:
            if self._file.readline() != head.encode():
                raise InputError(f"{path} holds the outputs of another teacher; remove it or choose another folder")
            self._end = self._read_entries(self._file.tell())
        except BaseException:
            self.close()
            raise

    def _read_entries(self, offset: int) -> int:
        """Finds all entries; returns the end of the last complete one and truncates the file there."""
        size = self._file.seek(0, 2)
        while offset + _ENTRY.size <= size:
            self._file.seek(offset)
            digest, rows, checksum = _ENTRY.unpack(self._file.read(_ENTRY.size))
            start = offset + _ENTRY.size
            if not rows or start + self._num_bytes(rows) > size:
                break
            self._entries[digest] = start, rows, checksum
            offset = start + self._num_bytes(rows)
        if offset != size:
            _log.warning("%s: the last entry is incomplete and is removed", self.path)
            self._file.truncate(offset)
        return offset

    def _num_bytes(self, rows: int) -> int:
        return rows * self._num_classes * self._dtype.itemsize

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self._end

    def get(self, digest: bytes) -> np.ndarray | None:
        """The values (B, K) for a digest; None if there are none, or if they are damaged."""
        if digest not in self._entries:
            return None
        offset, rows, checksum = self._entries[digest]
        self._file.seek(offset)
        content = self._file.read(self._num_bytes(rows))
        if zlib.crc32(content) != checksum:
            _log.warning("%s: a damaged entry; the teacher is evaluated again", self.path)
            return None
        return np.frombuffer(content, self._dtype).reshape(rows, self._num_classes)

    def put(self, digest: bytes, logits: np.ndarray) -> np.ndarray:
        """Appends logits (B, K); returns them in the number format of the file."""
        with np.errstate(over="ignore"):  # an error below
            values = logits.astype(self._dtype)
        if not np.isfinite(values).all():
            raise InputError(
                f"{self.path}: the teacher's outputs do not fit {self._dtype}; use distill.cache_dtype fp32"
            )
        content = values.tobytes()
        entry = _ENTRY.pack(digest, len(values), zlib.crc32(content)) + content
        try:
            self._file.seek(self._end)
            self._file.write(entry)
            self._file.flush()
        except OSError as error:
            error.filename = error.filename or str(self.path)
            raise
        self._entries[digest] = self._end + _ENTRY.size, len(values), zlib.crc32(content)
        self._end += len(entry)
        return values

    def close(self) -> None:
        """Closes the file and releases its lock."""
        self._file.close()
        self._release_lock()


_STORES: WeakValueDictionary[Path, LogitStore] = WeakValueDictionary()  # variants of one run share a file


def with_cache(
    teacher: Teacher, folder: Path, num_classes: int, dtype: Literal["fp16", "fp32"], precision: str
) -> CachedTeacher:
    """The teacher, evaluated in `precision`, with a store in `folder`: a file for each teacher and number format."""
    digest = teacher_digest(teacher, precision)
    # Each process of a run sees its own part of the batches.
    part = f"-{rank()}of{num_processes()}" if num_processes() > 1 else ""
    path = (folder / f"teacher-{digest[:16]}-{dtype}{part}.logits").resolve()
    store = _STORES.get(path)
    if store is None:
        store = _STORES[path] = LogitStore(path, digest, num_classes, dtype)
    return CachedTeacher(teacher, store)


def teacher_digest(teacher: Teacher, precision: str) -> str:
    """Digest of weights, layers, normalization, resolution and number format."""
    chosen = "" if teacher.outputs is None else f" {teacher.outputs.positions.tolist()}"
    settings = f"{teacher.resolution} {precision} {teacher.net}{chosen}"
    return weights_digest(teacher.net, teacher.normalize, prefix=settings)


def check_cache(recipe: Recipe, variant: VariantConfig, loader: Loader) -> None:
    """Checks before the training that the cache can be used.

    Raises:
        InputError: the engine draws its own crops, so that no later run has the same batches; or the disk is too small.
    """
    config = recipe.distill
    if config is None or config.cache is None:
        return
    if not loader.shares_boxes:
        raise InputError(
            "distill.cache: this engine draws its own crops, so no two runs have the same; use data.engine roc or torch"
        )
    config.cache.mkdir(parents=True, exist_ok=True)
    num_bytes = loader.num_samples * variant.epochs * len(loader.classes) * _DTYPES[config.cache_dtype].itemsize
    stored = sum(file.stat().st_size for file in config.cache.glob(f"teacher-*-{config.cache_dtype}*.logits"))
    free = shutil.disk_usage(config.cache).free
    if num_bytes - stored > free:
        raise InputError(
            f"distill.cache needs {num_bytes / 1e9:.1f} GB ({loader.num_samples} images, {variant.epochs} epochs, "
            f"{len(loader.classes)} classes), {config.cache} has {free / 1e9:.1f} GB free; choose another folder"
        )
