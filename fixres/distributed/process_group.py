"""Training in several processes, one for each GPU, as torchrun or SLURM start them (torch.distributed).

Outside of `joined` every function here says what is true of a single process, so callers need not ask.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fixres.distributed.rendezvous import meet
from pipelines.runtime.exit_codes import EXIT_LOST_PEER, leave
from pipelines.spec import InputError, Loader, OpenLoader

T = TypeVar("T")
_MINUTES_FOR_PEERS = 10  # to come, and for a step; then whoever waits says so
_HOURS_FOR_WORK = 24  # for what one process does while the others wait, above all converting the data
_control: dist.ProcessGroup | None = None  # on the CPU, with patience for long work


def rank() -> int:
    """This process among `num_processes`."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """Processes that train together (torch's world size)."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """This process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", 0)) if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes and talks."""
    return rank() == 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Meets the other processes, if the environment speaks of any; yields the device of this one.

    torchrun's variables are used, else those of a SLURM job step with several tasks.

    Args:
        device: "auto", "cpu" or "cuda"; "cuda:n" only for a process alone.

    Raises:
        InputError: more processes than GPUs, a device that all would share, or peers that do not come.

    Ends the process with `EXIT_LOST_PEER` if one of the others is gone while this one waits for it.
    """
    _from_slurm(os.environ)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    device = _own_device(device)
    _meet(device)
    try:
        yield device
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        # Whoever waits for it in vain cannot end properly either.
        line = " ".join(str(error).split())[:200]
        leave(f"another process of the run has gone ({line}); if it is not started again, look there", EXIT_LOST_PEER)
    finally:
        _part()


def _from_slurm(environment: Any) -> None:
    """Says in torchrun's words what srun tells its tasks; a batch script alone has no step and stays alone."""
    if "RANK" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    if "MASTER_ADDR" not in environment:
        if "SLURM_LAUNCH_NODE_IPADDR" not in environment:
            raise InputError("srun does not tell the address of the first node; set MASTER_ADDR to its name")
        environment["MASTER_ADDR"] = environment["SLURM_LAUNCH_NODE_IPADDR"]
    # Jobs that share a machine must not meet each other.
    environment.setdefault("MASTER_PORT", str(20000 + int(environment.get("SLURM_JOB_ID", 0)) % 20000))


def _own_device(device: str) -> str:
    if device.startswith("cuda:"):
        raise InputError(f"device={device}: several processes would share it; use --device cuda, each takes its own")
    if device == "cpu" or not torch.cuda.is_available():
        return device
    local, num_gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
    if local >= num_gpus:
        raise InputError(
            f"process {local} of this machine has no GPU, there are {num_gpus}; start {num_gpus} processes"
        )
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def _meet(device: str) -> None:
    global _control
    on_gpu = device.startswith("cuda")
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=_store(),
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=timedelta(minutes=_MINUTES_FOR_PEERS),
            device_id=torch.device(device) if on_gpu else None,
        )
    except (KeyError, dist.DistError, RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise InputError(f"the {os.environ['WORLD_SIZE']} processes did not meet at {where}: {error}") from error
    _control = dist.new_group(backend="gloo", timeout=timedelta(hours=_HOURS_FOR_WORK))


def _store() -> dist.Store:
    """Where processes tell each other their addresses, those of this start alone."""
    patience = timedelta(minutes=_MINUTES_FOR_PEERS)
    found, own_rank, number = next(dist.rendezvous("env://", timeout=patience))
    return meet(found, own_rank, number, patience.total_seconds())


def _part() -> None:
    global _control
    _control = None
    # A process that fails must not wait here for those that do not know yet.
    dist.destroy_process_group()


def _is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error says that another process of the run has gone."""
    words = ("gloo", "nccl", "connection reset", "connection closed", "broken pipe", "socket", "store")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def wait_for_all() -> None:
    """Returns when every process has come here."""
    if dist.is_initialized():
        dist.barrier(group=_control)


def first_main(work: Callable[[], T]) -> T:
    """`work()` in the main process, then in one process of each machine, then in the others.

    For work that leaves something on disk: machines with a disk of their own do it, others find it done.
    """
    turn = 0 if is_main() else 1 if local_rank() == 0 else 2
    result: list[T] = []
    for current in range(3 if dist.is_initialized() else 1):
        if current == turn:
            result.append(work())
        wait_for_all()
    return result[0]


def all_gather(value: T) -> list[T]:
    """The value of each process by rank, in all of them; anything that can be pickled."""
    if not dist.is_initialized():
        return [value]
    values: list[T | None] = [None] * num_processes()
    dist.all_gather_object(values, value, group=_control)
    return values  # type: ignore[return-value]


def broadcast(value: T) -> T:
    """The main process's value; anything that can be pickled."""
    if not dist.is_initialized():
        return value
    held = [value]
    dist.broadcast_object_list(held, 0, group=_control)
    return held[0]


def all_reduce(values: Tensor) -> Tensor:
    """The sum of the processes' tensors, on their device."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


@torch.no_grad()
def share_state(net: nn.Module) -> None:
    """Gives all processes the main one's buffers and weights.

    Weights are equal already; BatchNorm's statistics are of each process's own images (unless synchronized), and those
    of the main process are tested and saved.
    """
    if dist.is_initialized():
        for value in net.state_dict().values():
            dist.broadcast(value, 0)


class Agreement:
    """Wishes of single processes that all must follow after the same step, without waiting for each other.

    A wish goes round while the next step is computed, and all hear of it one call later.

    Args:
        num_flags: kinds of wishes.
    """

    def __init__(self, num_flags: int) -> None:
        self._num, self._under_way = num_flags, None

    def __call__(self, *flags: bool) -> tuple[bool, ...]:
        """Which wishes any process had: at the call before, or now in a process that is alone."""
        assert len(flags) == self._num, f"{len(flags)} wishes, there are {self._num} kinds"
        if not dist.is_initialized():
            return flags
        heard = self._hear()
        values = torch.tensor(flags, dtype=torch.uint8)
        self._under_way = values, dist.all_reduce(values, dist.ReduceOp.MAX, group=_control, async_op=True)
        return heard

    def _hear(self) -> tuple[bool, ...]:
        if self._under_way is None:
            return (False,) * self._num
        values, work = self._under_way
        work.wait()
        return tuple(bool(value) for value in values)


def data_parallel(net: nn.Module) -> nn.Module:
    """The network whose gradients are means over all processes; itself in a process that is alone."""
    if not dist.is_initialized():
        return net
    device = next(net.parameters()).device
    return nn.parallel.DistributedDataParallel(
        net, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def without_sync(net: nn.Module) -> Any:
    """The context of a micro-batch whose gradients only add to those of the next."""
    return net.no_sync() if isinstance(net, nn.parallel.DistributedDataParallel) else nullcontext()


def sharded(open_loader: OpenLoader) -> OpenLoader:
    """Opens loaders that give each process its part of every batch.

    `batch_size` is then that of all processes together. In training it must be divisible among them; in testing the
    last batches may be uneven, or empty.
    """
    if not dist.is_initialized():
        return open_loader

    def opened(split: Any, **fields: Any) -> Loader:
        size, number = fields.pop("batch_size"), num_processes()
        if fields.get("drop_last") and size % number:
            near = f"{size // number * number or number} or {(size // number + 1) * number}"
            raise InputError(f"batches of {size} images do not divide among {number} processes; use {near}")
        return open_loader(split, batch_size=-(-size // number), rank=rank(), world_size=number, **fields)

    return opened
