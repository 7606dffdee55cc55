"""A batch on its way from an engine to the consumer, and to the GPU beside the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol

import torch

from pipelines.spec import Batch

_HELD = 3  # batches of an engine on the GPU that are kept at most until the device has used them


class Delivery(NamedTuple):
    """A batch on its way to the consumer, with what it cost.

    Attributes:
        batch: images, labels and indices, on the loader's device.
        bytes_read: encoded bytes of its samples, None if the engine cannot tell.
        pixels_decoded: pixels that came out of the JPEG decoder, None if the engine cannot tell.
        bad_samples: one line for each sample that was replaced.
    """

    batch: Batch
    bytes_read: int | None
    pixels_decoded: int | None
    bad_samples: list[str]


def to_device(tensor: torch.Tensor, device: str) -> torch.Tensor:
    """The tensor on a device, without waiting; from memory that is not pinned torch would wait for all work before."""
    if torch.device(device).type == "cpu" or tensor.is_cuda:
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


class Sender(Protocol):
    """What takes a batch to the device in two steps."""

    def send(self, batch: Batch) -> tuple[Batch, object]:
        """Begins the copy; returns the batch on the device, whose contents come later, and what to wait for."""

    def receive(self, batch: Batch, sent: object) -> None:
        """Makes the consumer's work wait for the copy, not the consumer."""


class SideStream:
    """Copies on a CUDA stream of their own, so that they run beside the kernels of the training step."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._stream = torch.cuda.Stream(self._device)

    def send(self, batch: Batch) -> tuple[Batch, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            there = Batch(*(to_device(part, str(self._device)) for part in batch))
            return there, self._stream.record_event()

    def receive(self, batch: Batch, sent: torch.cuda.Event) -> None:
        current = torch.cuda.current_stream(self._device)
        current.wait_event(sent)
        for part in batch:  # else its memory would be free for the next copy while the training step still reads it
            part.record_stream(current)


def sent_ahead(deliveries: Generator[Delivery, None, None], sender: Sender) -> Generator[Delivery, None, None]:
    """Host batches on the device: each is on its way while the consumer works with the one before.

    An error of the engine comes after the batches that it made before.
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


def held(
    deliveries: Generator[Delivery, None, None], mark: Callable[[], torch.cuda.Event]
) -> Generator[Delivery, None, None]:
    """Batches that live in an engine's own device memory, kept until the device is done with them.

    The engine reuses memory once no tensor points to it, but the kernels that read it may still be waiting then. All
    kernels for a batch are queued when the consumer asks for the next one; an event behind them tells when they ran.

    Args:
        deliveries: of an engine that writes on the device itself.
        mark: records an event on the consumer's stream.
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
