"""Bad losses end the run, name their samples, and never make the host wait; with a device that only takes notes."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.fault_tolerance.loss_guard import _MAX_PENDING, LossGuard
from fixres.pipelines.spec import InputError

CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")


def feed(guard: LossGuard, losses: list[float], first: int = 0) -> None:
    for step, loss in enumerate(losses, start=first):
        guard.add(torch.tensor(loss, requires_grad=True), torch.arange(8) + 100 * step, "stage 1/2: 128 px", step)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_it_is_named_at_once_on_the_cpu(value: float, tmp_path: Path) -> None:
    guard = LossGuard(tmp_path / "run", CPU)
    with pytest.raises(InputError) as caught:
        feed(guard, [1.0, 2.0, value, 3.0])
    path = tmp_path / "run" / "nonfinite-stage-1-2-128-px-2.json"
    assert str(caught.value) == (
        f"stage 1/2: 128 px: the loss of step 2 is {value}; its 8 samples (200, 201, 202, 203, 204, ...) are in "
        f"{path}. Lower optim.lr, lengthen optim.warmup_epochs, or check these samples; --resume auto continues from "
        "the last training checkpoint"
    )
    batch = {"title": "stage 1/2: 128 px", "step": 2, "loss": str(value), "indices": list(range(200, 208))}
    assert json.loads(path.read_text()) == {"title": "stage 1/2: 128 px", "step": 2, "batches": [batch]}
    assert len(list((tmp_path / "run").iterdir())) == 1


def test_good_losses_leave_nothing(tmp_path: Path) -> None:
    guard = LossGuard(tmp_path / "run", CPU)
    feed(guard, [0.0, -1.0, 1e38] * 100)
    guard.drain()
    assert not (tmp_path / "run").exists()


@given(st.lists(st.sampled_from([1.0, NAN]), max_size=12), st.integers(0, 3))
@settings(deadline=None)
def test_it_ends_at_the_first_row_that_is_too_long(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float], num_allowed: int
) -> None:
    signs = "".join("b" if loss != loss else "g" for loss in losses)
    expected = signs.find("b" * (num_allowed + 1))
    guard = LossGuard(tmp_path_factory.mktemp("run"), CPU, num_allowed)
    if expected < 0:
        feed(guard, losses)
        return guard.drain()
    with pytest.raises(InputError, match=rf"the loss of step {expected + num_allowed} is nan"):
        feed(guard, losses)
    (path,) = guard.folder.iterdir()
    batches = json.loads(path.read_text())["batches"]
    assert [one["step"] for one in batches] == list(range(expected, expected + num_allowed + 1))
    assert [one["indices"][0] for one in batches] == [100 * one["step"] for one in batches]


def test_unknown_indices_are_mentioned(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"its 3 samples, whose indices the engine does not know, are in"):
        LossGuard(tmp_path, CPU).add(torch.tensor(NAN), torch.full((3,), -1), "x", 0)


def test_a_full_disk_does_not_hide_the_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fixres.fault_tolerance.loss_guard.write_json", full)
    with pytest.raises(
        InputError, match=r"step 0 is inf; .* could not be written to .*json \(No space left on device\)"
    ):
        feed(LossGuard(tmp_path, CPU), [INF])


class Device:
    """Copies that arrive when the test wants; records for which of them the host waited."""

    def __init__(self) -> None:
        self.num_sent, self.num_arrived, self.waited_for = 0, 0, []

    def copy(self, loss: torch.Tensor) -> tuple[torch.Tensor, Arrival]:
        assert not loss.requires_grad
        host = torch.full((), NAN)  # what a reader sees who comes too early
        self.num_sent += 1
        return host, Arrival(self, self.num_sent - 1, host, loss)


class Arrival:
    def __init__(self, device: Device, number: int, host: torch.Tensor, loss: torch.Tensor) -> None:
        self.device, self.number, self.host, self.loss = device, number, host, loss

    def query(self) -> bool:
        arrived = self.number < self.device.num_arrived
        if arrived:
            self.host.copy_(self.loss)
        return arrived

    def synchronize(self) -> None:
        if self.number >= self.device.num_arrived:
            self.device.waited_for.append(self.number)
            self.device.num_arrived = self.number + 1
        self.host.copy_(self.loss)


def test_losses_pending_are_not_looked_at_nor_waited_for(tmp_path: Path) -> None:
    device = Device()
    guard = LossGuard(tmp_path, CPU, copier=device.copy)
    feed(guard, [1.0, NAN, 1.0, 1.0])
    device.num_arrived = 1
    feed(guard, [1.0], first=4)
    device.num_arrived = 3
    with pytest.raises(InputError, match="the loss of step 1 is nan"):
        feed(guard, [1.0], first=5)
    assert device.waited_for == []
    guard.drain()  # what came after the bad step is forgotten
    assert device.waited_for == []


def test_drain_waits_for_all_in_order(tmp_path: Path) -> None:
    device = Device()
    guard = LossGuard(tmp_path, CPU, copier=device.copy)
    feed(guard, [1.0, 2.0, 3.0])
    guard.drain()
    assert device.waited_for == [0, 1, 2]
    feed(guard, [1.0, INF, NAN], first=3)
    with pytest.raises(InputError, match="the loss of step 4 is inf"):
        guard.drain()
    assert device.waited_for == [0, 1, 2, 3, 4]


def test_a_device_that_lags_behind_is_waited_for(tmp_path: Path) -> None:
    device = Device()
    guard = LossGuard(tmp_path, CPU, copier=device.copy)
    feed(guard, [1.0] * _MAX_PENDING)
    assert device.waited_for == []
    feed(guard, [1.0] * 3, first=_MAX_PENDING)
    assert device.waited_for == [0, 1, 2]
    assert len(guard._pending) == _MAX_PENDING


def test_rows_continue_over_drains(tmp_path: Path) -> None:
    guard = LossGuard(tmp_path, CPU, num_allowed=1, copier=Device().copy)
    feed(guard, [NAN])
    guard.drain()
    feed(guard, [NAN], first=1)
    with pytest.raises(InputError, match="step 1 is nan, after 1 others that are not finite"):
        guard.drain()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_on_a_gpu_the_host_does_not_wait_and_misses_nothing(tmp_path: Path) -> None:
    device = torch.device("cuda")
    guard = LossGuard(tmp_path, device)
    busy = torch.randn(8192, 8192, device=device)
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    for step in range(20):
        busy = torch.tanh(busy @ busy)
        guard.add(busy.mean() + (NAN if step == 17 else 0), torch.arange(4, device=device), "gpu", step)
    done.record()
    assert not done.query()  # the host is far ahead of the device
    with pytest.raises(InputError, match=r"the loss of step 17 is nan; its 4 samples \(0, 1, 2, 3\)"):
        guard.drain()
