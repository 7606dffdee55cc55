"""Kernels in kernels: they give what Python gives, and only the outermost one becomes machine code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.runtime import numba_cache
from fixres.pipelines.runtime.numba_cache import kernel, shared_kernel


@kernel
def _squares(values: np.ndarray) -> np.ndarray:
    if values[0] < 0:
        raise ValueError("negative", values.size)
    return values * values


@kernel
def _sum_of_squares(values: np.ndarray) -> int:
    total = 0
    for one in _squares(values):
        total += one
    return total


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba_cache, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(numba_cache, "_warm_folders", tuple)
    return tmp_path


def test_only_what_python_calls_becomes_machine_code(folder: Path) -> None:
    values = np.arange(5)
    assert _sum_of_squares(values) == 30
    assert [file.name for file in folder.rglob("*.nbc") if "_squares" in file.name and "sum" not in file.name] == []
    assert not _squares.signatures
    with pytest.raises(ValueError) as caught:  # raised in the part, with a value of the run
        _sum_of_squares(values - 1)
    assert caught.value.args == ("negative", 5)
    assert _squares(values).tolist() == [0, 1, 4, 9, 16]  # and from Python, after it was a part
    assert len(_squares.signatures) == 1


def test_with_another_version_of_numba_all_become_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.pipelines.runtime.kernel_parts._TESTED", (0, 1))
    part = kernel(_squares.py_func)
    whole = kernel(lambda values: part(values).sum())
    assert whole(np.arange(5)) == 30 and len(part.signatures) == 1


@pytest.mark.parametrize("damage", [False, True])
def test_a_shared_part_comes_from_the_disk_the_next_time(damage: bool, folder: Path) -> None:
    part = shared_kernel(_squares.py_func)
    whole = kernel(lambda values: part(values).sum())
    assert whole(np.arange(5)) == 30
    for file in folder.rglob("*.part*.nbc"):
        file.write_bytes(file.read_bytes()[: -damage or None])
    other = shared_kernel(_squares.py_func)  # as in another process: it has compiled nothing yet
    whole = kernel(lambda values: other(values).max())
    assert whole(np.arange(5)) == 16
    assert sum(other.get_call_template.__self__.stats.cache_hits.values()) == (0 if damage else 1)
    with pytest.raises(ValueError) as caught:
        whole(np.arange(5) - 1)
    assert caught.value.args == ("negative", 5)
