"""Processes meet in a corner of their own, whatever those before them left in the store."""

from __future__ import annotations

import random
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from fixres.distributed.rendezvous import meet


def _all_meet(store: dist.Store, number: int, delays: list[float]) -> None:
    """All write into what they were given and read what the others wrote there, and nothing older."""
    found: dict[int, list[str]] = {}

    def process(rank: int) -> None:
        time.sleep(delays[rank])
        corner = meet(store, rank, number, 20)
        assert not corner.check([f"address/{rank}"]), "something older is here"
        corner.set(f"address/{rank}", f"{rank}")
        corner.wait([f"address/{other}" for other in range(number)], timedelta(seconds=20))
        found[rank] = [corner.get(f"address/{other}").decode() for other in range(number)]

    threads = [threading.Thread(target=process, args=(rank,)) for rank in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == {rank: [str(other) for other in range(number)] for rank in range(number)}


@pytest.mark.parametrize("number", [2, 5])
def test_one_meeting_after_another(number: int) -> None:
    """In any order of arrival, each meeting in the same store as those before it, with other numbers in between."""
    rng, store = random.Random(number), dist.HashStore()
    for _ in range(6):
        for size in (number, rng.randint(1, 6)):
            _all_meet(store, size, [rng.random() * 0.08 for _ in range(size)])


def test_those_who_died_while_they_met_are_not_waited_for() -> None:
    """Greetings, answers and names of a start that got anywhere."""
    for left in (["greeting"], ["greeting", "answer"], ["greeting", "answer", "repeated"]):
        store = dist.HashStore()
        for rank in range(3):
            for key in left:
                store.set(f"{key}/{rank}", "dead" if key == "greeting" else "dead gone" if key == "answer" else "gone")
        for late in range(3):
            _all_meet(store, 3, [0.1 if rank == late else 0.0 for rank in range(3)])


@pytest.mark.parametrize(("rank", "whom"), [(0, "processes 1, 2"), (1, "the main process")])
def test_whoever_does_not_come_is_named(rank: int, whom: str) -> None:
    with pytest.raises(RuntimeError, match=f"waited in vain for {whom}"):
        meet(dist.HashStore(), rank, 3, 0.1)
