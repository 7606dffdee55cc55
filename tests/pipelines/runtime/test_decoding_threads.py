"""Threads that decode for a network on the same cores have a lower priority, and only they."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from fixres.pipelines.runtime.decoding_threads import decoding_threads


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
@pytest.mark.parametrize("device, lower", [("cpu", 10), ("cuda", 0), ("cuda:1", 0)])
def test_decoding_threads_have_a_lower_priority_if_batches_stay_on_the_cpu(device: str, lower: int) -> None:
    before = _niceness()
    with decoding_threads(2, device) as pool:
        assert pool.submit(_niceness).result() == min(19, before + lower)
    assert _niceness() == before
