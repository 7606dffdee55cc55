"""Keeps a whole file where the GPU's kernels can read it, so that nothing but boxes is copied for each batch.

Loaders of the same file in one process share the copy.
"""

from __future__ import annotations

import threading
import weakref
import zlib
from collections.abc import Callable

import numpy as np
import psutil
import torch
from torch import Tensor

from fixres.pipelines.roc.gpu.crop_plan import PADDING
from fixres.pipelines.roc.gpu.launcher import Launcher
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.spec import InputError, LoaderConfig

_MAX_SHARE = 0.5  # of the free memory, with "auto"; network and activations need the rest
_PIECE = 1 << 28  # bytes that are copied at a time through pinned memory
_LOCK = threading.Lock()
_COPIES: weakref.WeakValueDictionary[tuple, Tensor] = weakref.WeakValueDictionary()  # those that a loader still uses


def resident_copy(data: np.ndarray, table: np.ndarray, config: LoaderConfig, launcher: Launcher) -> Tensor | None:
    """A copy of a file where `config.resident` asks for it.

    Args:
        data: uint8, the whole file.
        table: its sample table, by which a replaced file is told from the one that is there.
        config: its path is named in messages.
        launcher: of the device.

    Returns:
        uint8, the file and some bytes of padding, on the device or in pinned host memory; None if no copy is kept. It
        must not be freed before the kernels that read it have run.

    Raises:
        InputError: with "always" or "host", the free memory does not suffice.
    """
    file = (str(config.path.resolve()), data.size, zlib.crc32(np.ascontiguousarray(table)))
    in_host = config.resident == "host"
    with _LOCK:
        key = (*file, "host" if in_host else str(launcher.device))
        copy = None if config.resident == "never" else _COPIES.get(key)
        if copy is None and config.resident != "never":
            copy = _in_host_memory(data, config, launcher) if in_host else _on_device(data, config, launcher)
            if copy is not None:
                _COPIES[key] = copy
        return copy


def _on_device(data: np.ndarray, config: LoaderConfig, launcher: Launcher) -> Tensor | None:
    free, size = launcher.memory()[0], data.size + PADDING
    if config.resident == "auto" and size > _MAX_SHARE * free:
        return None
    if size > free:
        raise InputError(
            f"resident='always', but {config.path} has {size / 1e9:.1f} GB and the GPU {free / 1e9:.1f} GB of free "
            "memory; use --resident never or host, or convert the images with a smaller --max-side"
        )
    with launcher.working():
        stored = torch.empty(size, dtype=torch.uint8, device=launcher.device)

        def copy(start: int, piece: np.ndarray) -> None:
            host = launcher.host_buffer(len(piece))
            host.numpy()[:] = piece
            stored[start : start + len(piece)].copy_(host, non_blocking=True)
            launcher.record().synchronize()  # else all pieces would be pinned at the same time

        _copy_pieces(data, "copying the data to the GPU", copy)
    return stored


def _in_host_memory(data: np.ndarray, config: LoaderConfig, launcher: Launcher) -> Tensor:
    size, free = data.size + PADDING, psutil.virtual_memory().available
    if size > free:
        raise InputError(
            f"resident='host', but {config.path} has {size / 1e9:.1f} GB and {free / 1e9:.1f} GB of memory are free; "
            "use --resident never"
        )
    with launcher.working():
        stored = launcher.pinned(size)
    pixels = stored.numpy()

    def copy(start: int, piece: np.ndarray) -> None:
        pixels[start : start + len(piece)] = piece

    _copy_pieces(data, "copying the data to pinned memory", copy)
    return stored


def _copy_pieces(data: np.ndarray, what: str, copy: Callable[[int, np.ndarray], None]) -> None:
    with progress_bar(data.size, what, unit="bytes") as bar:
        for start in range(0, data.size, _PIECE):
            piece = data[start : start + _PIECE]
            copy(start, piece)
            bar.update(len(piece))
