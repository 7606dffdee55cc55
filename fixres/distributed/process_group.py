"""Training in several processes, one for each GPU, started by torchrun or SLURM (torch.distributed).

Outside of `joined` every function works as for a single process, so callers need not check.
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

from fixres.distributed.rendezvous import private_store
from fixres.pipelines.runtime.exit_codes import EXIT_LOST_PEER, leave
from fixres.pipelines.spec import InputError, Loader, OpenLoader

T = TypeVar("T")
_MINUTES_FOR_PEERS = 10  # to start, and for a collective in a step; then the waiting process ends with an error
_HOURS_FOR_WORK = 24  # for work of one process while the others wait, such as converting the data
_control: dist.ProcessGroup | None = None  # on the CPU, with the long timeout


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """The number of processes that train together (torch's world size)."""
    return dist.get_world_size() if dist.is_initialized() else 1


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0)) if dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and logs."""
    return rank() == 0


@contextmanager
def joined(device: str) -> Iterator[str]:
    """Joins the process group, if the environment names one; yields the device of this process.

    The environment is torchrun's, or that of a SLURM job step with several tasks. Ends this process with
    `EXIT_LOST_PEER` if it waits for another process that has ended.

    Args:
        device: "auto", "cpu" or "cuda"; "cuda:n" only for a single process.

    Raises:
        InputError: more processes than GPUs, a device that all would share, or processes that do not start.
    """
    global _control
    _from_slurm(os.environ)
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield device
        return
    device = _own_device(device)
    _join(device)
    try:
        yield device
    except RuntimeError as error:
        if not _is_lost_peer(error):
            raise
        line = " ".join(str(error).split())[:200]
        leave(f"another process of the run has ended ({line}); if it is not restarted, see its log", EXIT_LOST_PEER)
    finally:
        _control = None
        # Without a barrier: a process that fails must not wait here for the others.
        dist.destroy_process_group()


def _from_slurm(environment: Any) -> None:
    """Sets torchrun's variables from those of srun. A batch script without a job step stays a single process."""
    if "RANK" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return
    environment["RANK"] = environment["SLURM_PROCID"]
    environment["WORLD_SIZE"] = environment["SLURM_STEP_NUM_TASKS"]
    environment["LOCAL_RANK"] = environment["SLURM_LOCALID"]
    if "MASTER_ADDR" not in environment:
        if "SLURM_LAUNCH_NODE_IPADDR" not in environment:
            raise InputError("srun does not give the address of the first node; set MASTER_ADDR to its name")
        environment["MASTER_ADDR"] = environment["SLURM_LAUNCH_NODE_IPADDR"]
    # Jobs that share a machine need different ports.
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


def _join(device: str) -> None:
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
        raise InputError(f"the {os.environ['WORLD_SIZE']} processes could not connect at {where}: {error}") from error
    _control = dist.new_group(backend="gloo", timeout=timedelta(hours=_HOURS_FOR_WORK))


def _store() -> dist.Store:
    """The store in which the processes of this start exchange their addresses."""
    timeout = timedelta(minutes=_MINUTES_FOR_PEERS)
    store, own_rank, number = next(dist.rendezvous("env://", timeout=timeout))
    return private_store(store, own_rank, number, timeout.total_seconds())


def _is_lost_peer(error: RuntimeError) -> bool:
    """Whether an error means that another process of the run has ended."""
    words = ("gloo", "nccl", "connection reset", "connection closed", "broken pipe", "socket", "store")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def wait_for_all() -> None:
    """Returns when every process has called this."""
    if dist.is_initialized():
        dist.barrier(group=_control)


def first_main(work: Callable[[], T]) -> T:
    """Calls `work` in the main process, then in one process of each machine, then in the others.

    For work that writes to the disk: only the first process on each disk does it, the others find it done.
    """
    turn = 0 if is_main() else 1 if local_rank() == 0 else 2
    result: list[T] = []
    for current in range(3 if dist.is_initialized() else 1):
        if current == turn:
            result.append(work())
        wait_for_all()
    return result[0]


def all_gather(value: T) -> list[T]:
    """The values of all processes by rank, in all processes; anything that can be pickled."""
    if not dist.is_initialized():
        return [value]
    values: list[T | None] = [None] * num_processes()
    dist.all_gather_object(values, value, group=_control)
    return values  # type: ignore[return-value]


def broadcast(value: T) -> T:
    """The value of the main process, in all processes; anything that can be pickled."""
    if not dist.is_initialized():
        return value
    held = [value]
    dist.broadcast_object_list(held, 0, group=_control)
    return held[0]


def all_reduce(values: Tensor) -> Tensor:
    """The sum of the tensors of all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


@torch.no_grad()
def share_state(net: nn.Module) -> None:
    """Copies buffers and weights from the main process to all processes.

    The weights are equal already. Each process has BatchNorm statistics of its own images (unless synchronized); those
    of the main process are evaluated and saved.
    """
    if dist.is_initialized():
        for value in net.state_dict().values():
            dist.broadcast(value, 0)


class SharedFlags:
    """Flags that any process can set and all processes see after the same step, without waiting for each other.

    The exchange runs while the next step is computed, so flags are seen one call later.
    """

    def __init__(self) -> None:
        self._pending = None

    def __call__(self, *flags: bool) -> tuple[bool, ...]:
        """Which flags any process had set in the call before; in a single process, the flags of this call."""
        if not dist.is_initialized():
            return flags
        seen = (False,) * len(flags)
        if self._pending is not None:
            values, work = self._pending
            work.wait()
            seen = tuple(bool(value) for value in values)
        values = torch.tensor(flags, dtype=torch.uint8)
        self._pending = values, dist.all_reduce(values, dist.ReduceOp.MAX, group=_control, async_op=True)
        return seen


def data_parallel(net: nn.Module) -> nn.Module:
    """The network with gradients averaged over all processes; the network itself in a single process."""
    if not dist.is_initialized():
        return net
    device = next(net.parameters()).device
    return nn.parallel.DistributedDataParallel(
        net, device_ids=[device.index] if device.type == "cuda" else None, gradient_as_bucket_view=True
    )


def without_sync(net: nn.Module) -> Any:
    """A context in which gradients are added up and not exchanged between processes."""
    return net.no_sync() if isinstance(net, nn.parallel.DistributedDataParallel) else nullcontext()


def sharded(open_loader: OpenLoader) -> OpenLoader:
    """Wraps `open_loader`: each process gets its part of every batch, and `batch_size` is over all processes.

    In training the batch size must be divisible by the number of processes. In testing the last batches can have
    different sizes, or be empty.
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
