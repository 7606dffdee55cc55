"""Host buffers for batches, and the transfer of batches to the device during the training step."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np
import torch

from fixres.pipelines.spec import Batch

_HELD = 3  # batches in an engine's device memory that are kept until the device has used them, at most


class Delivery(NamedTuple):
    """A batch with the costs of making it. Costs are None if the engine cannot tell them."""

    batch: Batch  # images, labels and indices, on the loader's device
    bytes_read: int | None  # encoded bytes of its samples
    pixels_decoded: int | None  # pixels that came out of the JPEG decoder
    bad_samples: list[str]  # one line for each sample that was replaced


class HostBuffers:
    """Allocates uint8 buffers in host memory and reuses them once nobody holds them.

    A freed buffer comes back through a weak reference, which saves the page faults of fresh memory (0.1 ms a megabyte).
    A buffer that the consumer keeps is never overwritten.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        self._lock = threading.Lock()

    def take(self, *shape: int) -> np.ndarray:
        """uint8 array of this shape, contents undefined."""
        num_bytes = math.prod(shape)
        base = self._reuse(num_bytes)
        view = base[:num_bytes].reshape(shape)
        # The finalizer may run inside a garbage collection, so it takes no lock; list.append is atomic.
        weakref.finalize(view, self._free.append, base).atexit = False
        return view

    def _reuse(self, num_bytes: int) -> np.ndarray:
        with self._lock:
            while self._free:
                base = self._free.pop()
                if num_bytes <= base.size <= 4 * num_bytes + 4096:
                    return base  # buffers of another resolution are dropped
        return np.empty(num_bytes + num_bytes // 4, np.uint8)  # the sizes of cut JPEG files vary


def batch_buffer(buffers: HostBuffers, device: str, *shape: int) -> torch.Tensor:
    """uint8 of this shape in host memory, contents undefined.

    For a GPU it is pinned; torch's own cache of pinned memory reuses it after the copy to the device.
    """
    if torch.device(device).type == "cpu":
        return torch.from_numpy(buffers.take(*shape))
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True)


Part = torch.Tensor | tuple[torch.Tensor, ...]
"""One of the three parts of a batch; images of several sizes are a tuple."""


def to_device(tensor: Part, device: str) -> Part:
    """Copies a tensor to a device without waiting. From unpinned memory torch would wait for all earlier work."""
    if isinstance(tensor, tuple):
        return tuple(to_device(one, device) for one in tensor)
    if torch.device(device).type == "cpu" or tensor.is_cuda:
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


class SideStream:
    """Copies on a separate CUDA stream, so that they overlap with the kernels of the training step."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)

    def send(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        """Starts the copy; returns the batch on the device, which is filled later, and an event to wait for."""
        with torch.cuda.stream(self._stream):
            there = Batch(*(to_device(part, str(self._device)) for part in batch))
            return there, self._stream.record_event()

    def receive(self, batch: Batch, sent: torch.cuda.Event) -> None:
        """Makes the consumer's kernels wait for the copy; the consumer itself does not wait."""
        current = torch.cuda.current_stream(self._device)
        current.wait_event(sent)
        for part in batch:  # else the next copy could reuse its memory while the training step still reads it
            for tensor in part if isinstance(part, tuple) else (part,):
                tensor.record_stream(current)


def send_ahead(deliveries: Generator[Delivery, None, None], sender: SideStream) -> Generator[Delivery, None, None]:
    """Copies host batches to the device, one batch ahead of the consumer.

    If the engine raises an error, the consumer gets it after the batches before it.
    """
    ahead: tuple[Delivery, object] | None = None
    error: Exception | None = None
    try:
        while error is None:
            try:
                delivery = next(deliveries, None)
            except Exception as raised:
                delivery, error = None, raised
            following = None
            if delivery is not None:
                batch, sent = sender.send(delivery.batch)
                following = (delivery._replace(batch=batch), sent)
            if ahead is not None:
                sender.receive(ahead[0].batch, ahead[1])
                yield ahead[0]
            ahead = following
            if delivery is None and error is None:
                return
        raise error
    finally:
        deliveries.close()


def hold_until_used(
    deliveries: Generator[Delivery, None, None], mark: Callable[[], torch.cuda.Event]
) -> Generator[Delivery, None, None]:
    """Keeps batches in an engine's device memory until the device has used them.

    The engine reuses memory once no tensor points to it, but kernels that read it may still be queued then. When the
    consumer asks for the next batch, all kernels for the last one are queued; an event after them tells when they ran.
    `mark` records it on the consumer's stream.
    """
    waiting: deque[tuple[Delivery, torch.cuda.Event]] = deque()
    try:
        for delivery in deliveries:
            yield delivery
            waiting.append((delivery, mark()))
            while waiting and (len(waiting) > _HELD or waiting[0][1].query()):
                waiting.popleft()[1].synchronize()
    finally:
        deliveries.close()
        for _, used in waiting:
            used.synchronize()
