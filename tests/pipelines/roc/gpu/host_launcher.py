"""The host build of the kernels behind the interface by which engine `roc-gpu` uses a GPU."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from fixres.pipelines.roc.gpu import launcher
from fixres.pipelines.roc.gpu.arguments import Batch, Launch
from tests.pipelines.roc.gpu import host_build


class LateEvent:
    """An event that has not happened before the host waits for it."""

    def __init__(self, is_done: bool) -> None:
        self.is_done = is_done

    def query(self) -> bool:
        return self.is_done

    def synchronize(self) -> None:
        self.is_done = True


class HostLauncher:
    """Runs each kernel when it is launched.

    Args:
        is_late: events have not happened before the host waits for them.
    """

    def __init__(self, is_late: bool = False) -> None:
        self.device, self.is_late = torch.device("cpu"), is_late
        self.num_bytes_free = 0
        self.num_bytes_sent, self.num_bytes_pinned, self.num_waits = 0, 0, 0

    def working(self) -> nullcontext:
        return nullcontext()

    def memory(self) -> tuple[int, int]:
        return self.num_bytes_free, 1 << 40

    def host_buffer(self, num_bytes: int) -> Tensor:
        return torch.full((num_bytes,), 0x5A, dtype=torch.uint8)

    def pinned(self, num_bytes: int) -> Tensor:
        self.num_bytes_pinned = num_bytes
        return torch.full((num_bytes,), 0x5A, dtype=torch.uint8)

    def send(self, host: Tensor) -> Tensor:
        self.num_bytes_sent += len(host)
        return host.clone()

    def fetch(self, tensor: Tensor) -> Tensor:
        return tensor.clone()

    def launch(self, launch: Launch, batch: Batch) -> None:
        host_build.run(host_build.load(), launch, batch)

    def record(self) -> LateEvent:
        return LateEvent(not self.is_late)

    def receive(self, tensors: tuple[Tensor, ...], done: LateEvent) -> None:
        assert all(tensor.is_contiguous() for tensor in tensors) and isinstance(done, LateEvent)
        self.num_waits += 1


def install(monkeypatch: pytest.MonkeyPatch, is_late: bool = False) -> HostLauncher:
    """Makes engine `roc-gpu` use the host build; returns its launcher."""
    made = HostLauncher(is_late)
    monkeypatch.setattr(launcher, "open_launcher", lambda _: made)
    return made
