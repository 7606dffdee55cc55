"""Mutated index files and journals; `tests.pipelines.crop_index.index_fuzzer` tries more of them by hand."""

from __future__ import annotations

from pathlib import Path

from tests.pipelines.crop_index.index_fuzzer import fuzz


def test_mutated_indexes_are_refused_or_harmless(tmp_path: Path) -> None:
    outcomes = fuzz(160, 0, tmp_path / "images")
    assert outcomes["refused"] > 60 and outcomes["the same crops"] > 20


def test_mutated_coarse_levels_are_refused_or_harmless(tmp_path: Path) -> None:
    outcomes = fuzz(80, 1, tmp_path / "images", coarse=True)
    assert outcomes["refused"] > 30 and outcomes["the same crops"] > 10
