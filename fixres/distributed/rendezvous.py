"""A part of torch's store for one start of the processes, independent of what earlier starts have written.

torchrun keeps one store over all restarts, and torch writes the same keys each time: a process that reads an old
address waits for a process that has ended. The count of restarts cannot tell starts apart: each machine has its own.
"""

from __future__ import annotations

import time
import uuid

import torch.distributed as dist

_PAUSE = 0.02


def private_store(store: dist.Store, rank: int, num_processes: int, seconds: float) -> dist.Store:
    """A part of `store` under a prefix that only the processes of this start know.

    Each process writes a request with a random token. The main process answers each request with its token and the
    prefix, until every process has confirmed the prefix. So an answer to an old request is ignored, because it has
    another token. Raises RuntimeError if the others do not answer within `seconds`.
    """
    deadline = time.monotonic() + seconds
    prefix = _answer_all(store, num_processes, deadline) if rank == 0 else _request(store, rank, deadline)
    return dist.PrefixStore(prefix, store)


def _answer_all(store: dist.Store, num_processes: int, deadline: float) -> str:
    prefix, missing = uuid.uuid4().hex, set(range(1, num_processes))
    while missing:
        for rank in sorted(missing):
            if token := _read(store, f"request/{rank}"):
                store.set(f"answer/{rank}", f"{token} {prefix}")
            if _read(store, f"confirmed/{rank}") == prefix:
                missing.discard(rank)
        _wait(deadline, f"processes {', '.join(map(str, sorted(missing)))}")
    return prefix


def _request(store: dist.Store, rank: int, deadline: float) -> str:
    token = uuid.uuid4().hex
    store.set(f"request/{rank}", token)
    while not (answer := _read(store, f"answer/{rank}")).startswith(token):
        _wait(deadline, "the main process")
    prefix = answer.split()[1]
    store.set(f"confirmed/{rank}", prefix)
    return prefix


def _read(store: dist.Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _wait(deadline: float, peer: str) -> None:
    if time.monotonic() > deadline:
        raise RuntimeError(f"timeout while waiting for {peer}")
    time.sleep(_PAUSE)
