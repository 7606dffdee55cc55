"""Worker processes are forks of this process, or of a server once DALI is loaded."""

from __future__ import annotations

import os
import sys
import types

import numpy as np
import pytest

from fixres.pipelines.runtime.process_pool import map_chunks


def parent_of_worker(numbers: np.ndarray) -> tuple[int, int]:
    return int(numbers.sum()), os.getppid()


@pytest.mark.parametrize("has_dali", [False, True])
def test_workers_are_forks_of_this_process_unless_dali_is_loaded(
    has_dali: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_dali:
        monkeypatch.setitem(sys.modules, "nvidia.dali", types.ModuleType("nvidia.dali"))
    else:
        monkeypatch.delitem(sys.modules, "nvidia.dali", raising=False)
    main = sys.modules["__main__"]
    before = main.__spec__, vars(main).get("__file__")
    found = list(map_chunks(parent_of_worker, np.arange(10), 3, 2))
    assert [total for total, _ in found] == [3, 12, 21, 9]
    assert all((parent != os.getpid()) == has_dali for _, parent in found)
    assert (main.__spec__, vars(main).get("__file__")) == before
