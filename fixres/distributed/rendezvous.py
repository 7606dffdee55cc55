"""A fresh corner of a store, agreed on by those who are alive now, whatever dead processes have left in it.

torchrun keeps one store over all restarts, and torch writes the same keys each time: whoever reads an address before it
is written anew waits for a process that is gone. The count of restarts is no way out, for each machine has its own.
"""

from __future__ import annotations

import time
import uuid

import torch.distributed as dist

_PAUSE = 0.02


def meet(store: dist.Store, rank: int, num_processes: int, seconds: float) -> dist.Store:
    """The part of `store` that belongs to this meeting alone.

    Everyone greets with a word made up now. The main process answers each greeting with that word and the meeting's
    name, and goes on until everyone has repeated the name; so an old greeting is answered in vain, and an old answer
    lacks one's word.

    Args:
        store: shared by all processes, of whatever content.
        rank: of this process.
        num_processes: in all.
        seconds: to wait for the others.

    Raises:
        RuntimeError: they did not come.
    """
    give_up = time.monotonic() + seconds
    name = _invite(store, num_processes, give_up) if rank == 0 else _come(store, rank, give_up)
    return dist.PrefixStore(name, store)


def _invite(store: dist.Store, num_processes: int, give_up: float) -> str:
    name, missing = uuid.uuid4().hex, set(range(1, num_processes))
    while missing:
        for rank in sorted(missing):
            if greeting := _read(store, f"greeting/{rank}"):
                store.set(f"answer/{rank}", f"{greeting} {name}")
            if _read(store, f"repeated/{rank}") == name:
                missing.discard(rank)
        _wait(give_up, f"processes {', '.join(map(str, sorted(missing)))}")
    return name


def _come(store: dist.Store, rank: int, give_up: float) -> str:
    word = uuid.uuid4().hex
    store.set(f"greeting/{rank}", word)
    while not (answer := _read(store, f"answer/{rank}")).startswith(word):
        _wait(give_up, "the main process")
    name = answer.split()[1]
    store.set(f"repeated/{rank}", name)
    return name


def _read(store: dist.Store, key: str) -> str:
    return store.get(key).decode() if store.check([key]) else ""


def _wait(give_up: float, whom: str) -> None:
    if time.monotonic() > give_up:
        raise RuntimeError(f"waited in vain for {whom}")
    time.sleep(_PAUSE)
