"""Batches on their way to a device: a fake device that records calls, and CUDA with the marker gpu."""

from __future__ import annotations

from collections.abc import Generator

import pytest
import torch

from fixres.pipelines.loaders.delivery import Delivery, SideStream, hold_until_used, send_ahead, to_device
from fixres.pipelines.spec import Batch


class Notes:
    """A sender and its events; records the order of calls."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def send(self, batch: Batch) -> tuple[Batch, object]:
        self.lines.append(f"send {batch.labels.item()}")
        return batch, batch.labels.item()

    def receive(self, batch: Batch, sent: object) -> None:
        assert sent == batch.labels.item()
        self.lines.append(f"receive {sent}")


class Event:
    """An event that has not happened at the first query."""

    def __init__(self, number: int, lines: list[str]) -> None:
        self.number, self.lines, self.asked = number, lines, 0

    def query(self) -> bool:
        self.asked += 1
        return self.asked > 1

    def synchronize(self) -> None:
        self.lines.append(f"release {self.number}")


def deliveries(num: int, lines: list[str], error: Exception | None = None) -> Generator[Delivery, None, None]:
    try:
        for number in range(num):
            label = torch.tensor([number])
            yield Delivery(Batch(torch.full((1, 2, 2, 3), number, dtype=torch.uint8), label, label), number, 0, [])
        if error is not None:
            raise error
    finally:
        lines.append("closed")


def test_the_next_batch_is_sent_before_one_is_delivered() -> None:
    notes = Notes()
    for delivery in send_ahead(deliveries(3, notes.lines), notes):
        notes.lines.append(f"train {delivery.batch.labels.item()}")
        assert delivery.bytes_read == delivery.batch.labels.item()
    assert notes.lines == [
        *("send 0", "send 1", "receive 0", "train 0", "send 2", "receive 1", "train 1"),
        *("closed", "receive 2", "train 2"),
    ]


@pytest.mark.parametrize("num", [0, 1])
def test_few_batches_arrive_too(num: int) -> None:
    notes = Notes()
    assert len(list(send_ahead(deliveries(num, notes.lines), notes))) == num


def test_an_error_comes_after_the_batches_before_it() -> None:
    notes, seen = Notes(), []
    with pytest.raises(OSError, match="gone"):
        for delivery in send_ahead(deliveries(2, notes.lines, OSError("gone")), notes):
            seen.append(delivery.batch.labels.item())
    assert seen == [0, 1]


def test_an_abandoned_iteration_closes_the_engine() -> None:
    notes = Notes()
    running = send_ahead(deliveries(5, notes.lines), notes)
    next(running)
    running.close()
    assert notes.lines[-1] == "closed"


def test_device_memory_is_kept_until_it_was_used() -> None:
    lines: list[str] = []
    marks = iter(range(9))
    for delivery in hold_until_used(deliveries(3, lines), lambda: Event(next(marks), lines)):
        lines.append(f"train {delivery.batch.labels.item()}")
    # Queried after its own batch and after the next one; then it has been used.
    assert lines == ["train 0", "train 1", "release 0", "train 2", "release 1", "closed", "release 2"]


def test_at_most_three_batches_are_held_for_a_slow_device() -> None:
    lines: list[str] = []
    marks = iter(range(9))

    class Never(Event):
        def query(self) -> bool:
            return False

    for delivery in hold_until_used(deliveries(5, lines), lambda: Never(next(marks), lines)):
        lines.append(f"train {delivery.batch.labels.item()}")
    assert lines.index("release 0") > lines.index("train 3") and lines.index("release 0") < lines.index("train 4")
    assert [line for line in lines if line.startswith("release")] == [f"release {k}" for k in range(5)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_batches_on_a_side_stream_arrive_complete() -> None:
    def made() -> Generator[Delivery, None, None]:
        for number in range(40):
            images = torch.full((64, 128, 128, 3), number, dtype=torch.uint8, pin_memory=True)
            labels = torch.full((64,), number)
            yield Delivery(Batch(images, labels, labels.clone()), 0, 0, [])

    sums = []
    weights = torch.randn(2048, 2048, device="cuda")
    for number, delivery in enumerate(send_ahead(made(), SideStream("cuda"))):
        for _ in range(20):  # keeps the consumer's stream busy, so that a missing wait is noticed
            weights = torch.tanh(weights @ weights)
        sums.append((delivery.batch.images.double().mean(), delivery.batch.labels.double().mean(), number))
    assert [(float(a), float(b)) for a, b, _ in sums] == [(n, n) for *_, n in sums]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_small_tensors_are_sent_without_waiting() -> None:
    busy = torch.randn(8192, 8192, device="cuda")
    to_device(torch.arange(256), "cuda")  # the first call allocates memory and loads kernels, which may wait
    busy @ busy
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    for _ in range(20):
        busy = busy @ busy
    there = to_device(torch.arange(256), "cuda")
    done.record()
    assert not done.query()  # the host is back while the device still works
    assert there.tolist() == list(range(256))
