"""Buffers that batches are written into, reused as soon as nobody holds the batch any more."""

from __future__ import annotations

import threading
import weakref

import numpy as np
import torch


class Staging:
    """Hands out uint8 buffers for batches.

    For the CPU a freed buffer comes back through a weak reference, which saves the page faults of fresh memory (0.1 ms
    a megabyte); a batch that is kept keeps its buffer, so nothing is ever overwritten under a consumer. For a GPU the
    buffers are pinned, and torch's own cache of pinned memory reuses them once the copy to the device is done.
    """

    def __init__(self, device: str) -> None:
        self._on_cpu = torch.device(device).type == "cpu"
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, num_images: int, resolution: int) -> torch.Tensor:
        """uint8 (num_images, r, r, 3) in host memory, contents undefined."""
        shape = (num_images, resolution, resolution, 3)
        if not self._on_cpu:
            return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        num_bytes = num_images * resolution * resolution * 3
        base = self._reuse(num_bytes)
        view = base[:num_bytes].reshape(shape)
        weakref.finalize(view, self._give_back, base).atexit = False
        return torch.from_numpy(view)

    def _reuse(self, num_bytes: int) -> np.ndarray:
        with self._lock:
            while self._free:
                base = self._free.pop()
                if num_bytes <= base.size <= 2 * num_bytes + 4096:
                    return base  # others, from before a change of resolution, are let go
        return np.empty(num_bytes, np.uint8)

    def _give_back(self, base: np.ndarray) -> None:
        # Runs wherever the last reference dies, inside a garbage collection if it must be: list.append needs no lock.
        self._free.append(base)
