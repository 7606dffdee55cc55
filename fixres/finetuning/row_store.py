"""Where a row for each image is kept while a fix lasts: in memory, or in a temporary file if that would be too much.

Processes that train together share a file on each machine, written by one of them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.config.recipe import FinetuneConfig
from fixres.distributed.process_group import all_gather, local_rank, num_processes, wait_for_all
from pipelines.spec import InputError

_GIB = 2**30
_SPARE = 0.95  # of the disk's free space


class NoRoomError(Exception):
    """The rows do not fit anywhere; the text is a reason that completes "because"."""


class RowStore(NamedTuple):
    """Rows and where they are.

    Attributes:
        rows: (N, F), float16 or float32.
        where: "in memory", or the folder of the temporary file, for people.
        writes: whether this process is to write the rows.
    """

    rows: np.ndarray
    where: str
    writes: bool


def make_rows(shape: tuple[int, int], config: FinetuneConfig) -> RowStore:
    """Room for rows, of whatever content.

    Args:
        shape: (N, F).
        config: number format and limits.

    Raises:
        NoRoomError: more than the memory limit and more than the disk has, on some machine.
    """
    dtype = np.dtype(np.float16 if config.cache_dtype == "fp16" else np.float32)
    place = Path(config.cache_dir or tempfile.gettempdir())
    if num_processes() > 1:
        return _shared(place, shape, dtype)
    if shape[0] * shape[1] * dtype.itemsize <= config.cache_memory * _GIB:
        return RowStore(np.empty(shape, dtype), "in memory", True)
    file = _reserved(place, shape, dtype)
    try:
        return RowStore(np.memmap(file, dtype, "r+", shape=shape), f"in a temporary file in {place}", True)
    finally:
        file.unlink()  # without a name it goes when the process does


def _reserved(place: Path, shape: tuple[int, int], dtype: np.dtype) -> Path:
    """A file of the rows' size."""
    if not place.is_dir():
        raise InputError(f"finetune.cache_dir={place} is no folder; make it, or choose another")
    num_bytes, free = shape[0] * shape[1] * dtype.itemsize, shutil.disk_usage(place).free
    if num_bytes > _SPARE * free:
        raise NoRoomError(f"they would take {size_text(num_bytes)}, and {place} has {size_text(free)} free")
    descriptor, name = tempfile.mkstemp(prefix="fix-rows-", dir=place)
    try:
        # Reserved now: a disk that fills up under a mapped file kills the process instead of raising.
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError:
        os.unlink(name)
        raise
    finally:
        os.close(descriptor)
    return Path(name)


def _shared(place: Path, shape: tuple[int, int], dtype: np.dtype) -> RowStore:
    made, reason, writes = None, None, local_rank() == 0
    machine = Path("/proc/sys/kernel/random/boot_id").read_text()
    try:
        made = _reserved(place, shape, dtype) if writes else None
    except NoRoomError as error:
        reason = str(error)
    told = all_gather((machine, made, reason))
    try:
        if reasons := [why for _, _, why in told if why is not None]:
            raise NoRoomError(reasons[0])
        file = next(path for where, path, _ in told if where == machine and path is not None)
        rows = np.memmap(file, dtype, "r+", shape=shape)
        wait_for_all()  # all have opened it
    finally:
        if made is not None:
            made.unlink()
    return RowStore(rows, f"in a temporary file in {place}, which the processes share", writes)


def size_text(num_bytes: int) -> str:
    """A size for people."""
    return f"{num_bytes / _GIB:.1f} GiB" if num_bytes >= _GIB else f"{num_bytes / 2**20:.1f} MiB"
