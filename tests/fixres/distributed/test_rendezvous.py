"""The processes of one start agree on a private part of the store, whatever earlier starts have left in it."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from fixres.distributed.rendezvous import private_store


def _check_start(store: dist.Store, number: int, delays: list[float]) -> None:
    """Every process writes into its private store and reads what the others wrote there, and nothing older."""
    found: dict[int, list[str]] = {}

    def process(rank: int) -> None:
        time.sleep(delays[rank])
        private = private_store(store, rank, number, 20)
        assert not private.check([f"address/{rank}"]), "something older is here"
        private.set(f"address/{rank}", f"{rank}")
        private.wait([f"address/{other}" for other in range(number)], timedelta(seconds=20))
        found[rank] = [private.get(f"address/{other}").decode() for other in range(number)]

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {rank: [str(other) for other in range(number)] for rank in range(number)}


@pytest.mark.parametrize("number", [2, 5])
def test_start_after_start_in_one_store(number: int) -> None:
    """In any order of arrival, with other numbers of processes in between."""
    rng, store = random.Random(number), dist.HashStore()
    for _ in range(6):
        for size in (number, rng.randint(1, 6)):
            _check_start(store, size, [rng.random() * 0.08 for _ in range(size)])


def test_keys_of_processes_that_died_are_ignored() -> None:
    """Requests, answers and confirmations of a start that ended at any point."""
    for left in (["request"], ["request", "answer"], ["request", "answer", "confirmed"]):
        store = dist.HashStore()
        for rank in range(3):
            for key in left:
                store.set(f"{key}/{rank}", "dead" if key == "request" else "dead gone" if key == "answer" else "gone")
        for late in range(3):
            _check_start(store, 3, [0.1 if rank == late else 0.0 for rank in range(3)])


@pytest.mark.parametrize(("rank", "peer"), [(0, "processes 1, 2"), (1, "the main process")])
def test_a_missing_process_is_named(rank: int, peer: str) -> None:
    with pytest.raises(RuntimeError, match=f"timeout while waiting for {peer}"):
        private_store(dist.HashStore(), rank, 3, 0.1)
