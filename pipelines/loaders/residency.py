"""Keeps a whole file in the memory of the GPU, so that nothing but boxes is copied for each batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fixres.pipelines.roc.gpu.crop_plan import PADDING
from fixres.pipelines.roc.gpu.launcher import Launcher
from fixres.pipelines.runtime.progress import progress_bar
from fixres.pipelines.spec import InputError, LoaderConfig

_MAX_SHARE = 0.5  # of the free memory, with "auto"; network and activations need the rest
_PIECE = 1 << 28  # bytes that are copied at a time through pinned memory


def upload(data: np.ndarray, config: LoaderConfig, launcher: Launcher) -> Tensor | None:
    """Copies a file to the device as `config.resident` asks for it.

    Args:
        data: uint8, the whole file.
        config: its path is named in messages.
        launcher: of the device.

    Returns:
        uint8 on the device, the file and some bytes of padding; None if the file is not kept there.

    Raises:
        InputError: with "always", the free memory does not suffice.
    """
    free, size = launcher.memory()[0], data.size + PADDING
    if config.resident == "never" or (config.resident == "auto" and size > _MAX_SHARE * free):
        return None
    if size > free:
        raise InputError(
            f"resident='always', but {config.path} has {size / 1e9:.1f} GB and the GPU {free / 1e9:.1f} GB of free "
            "memory; use --resident never, or convert the images with a smaller --max-side"
        )
    with launcher.working():
        stored = torch.empty(size, dtype=torch.uint8, device=launcher.device)
        with progress_bar(data.size, "copying the data to the GPU", unit="bytes") as bar:
            for start in range(0, data.size, _PIECE):
                piece = data[start : start + _PIECE]
                host = launcher.host_buffer(len(piece))
                host.numpy()[:] = piece
                stored[start : start + len(piece)].copy_(host, non_blocking=True)
                launcher.record().synchronize()  # else all pieces would be pinned at the same time
                bar.update(len(piece))
    return stored
