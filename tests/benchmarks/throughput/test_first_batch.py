"""The benchmark of the first batch: which times it relates, and its table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.docs.render import section
from benchmarks.harness.interleaved import Window
from benchmarks.throughput import first_batch
from fixres.pipelines.spec import InputError


def test_times_are_related_to_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def window(code: str, _paths: list[str], **variables: str) -> Window:
        seconds = {"import torch": 3.0, "import fixres": 4.0}.get(code[:13], 30.0)
        return Window(1, 20.0 if "NUMBA_CACHE_DIR" in variables else seconds, seconds / 2)

    monkeypatch.setattr(first_batch, "_window", window)
    monkeypatch.setattr(first_batch.FirstBatchOptions, "files", lambda _: _Files())
    options = first_batch.FirstBatchOptions(data=tmp_path, num_images=64, rounds=2, json=tmp_path / "first.json")
    content = first_batch.measure(options)
    text = section(content)
    assert "| import torch | 3.00 | 1.50 | 0.75 (0.75 to 0.75) |" in text
    assert "| ffcv | 30.00 | 15.00 | 7.50 (7.50 to 7.50) |" in text
    assert "| fixres.Loader, kernels compiled from nothing | 20.0 | 2.0 | - |" in text


class _Files:
    def path(self, kind: str) -> Path:
        return Path(f"{kind}.beton")


def test_a_program_counts_until_its_work_is_done() -> None:
    found = first_batch._window("import os; print(sys.argv[1])", ["some output"])
    assert found.seconds > 0 and found.cpu_seconds is not None
    with pytest.raises(InputError, match="a program failed"):
        first_batch._window("sys.exit(1)", [sys.executable])
