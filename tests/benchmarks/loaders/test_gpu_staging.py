"""The benchmark of the host's work for engine roc-gpu runs, and its record has a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.docs.render import section
from benchmarks.loaders import gpu_staging
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record
from tests.pipelines.loaders.loading import write_coded_beton, write_coded_roc


def test_all_steps_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, target = write_coded_roc(tmp_path / "x.beton", [(60, 80), (90, 70)] * 4), tmp_path / "gpu_staging.json"
    words = ["--data", path, "--json", target, "--batch-size", 4, "--rounds", 2, "--train-res", 32]
    monkeypatch.setattr(sys, "argv", ["gpu_staging", *map(str, words)])
    gpu_staging.main()
    content = read_record(target, "gpu_staging")
    (result,) = content["results"]
    assert result["res"] == 32 and result["num_images"] == 24 and result["bytes_per_image"] > 600
    assert {step: len(times) for step, times in result["microseconds"].items()} == {"pack": 2, "resident": 2, "roc": 2}
    assert "| 32 | 1 |" in section(content) and "| px | KB a crop | pack | resident | roc |" in section(content)


def test_a_file_without_records_is_refused(tmp_path: Path) -> None:
    path = write_coded_beton(tmp_path / "x.beton", [(40, 40)] * 2)
    with pytest.raises(InputError, match="has no RoC records"):
        gpu_staging.measure(gpu_staging.GPUStagingOptions(data=path, batch_size=2))
