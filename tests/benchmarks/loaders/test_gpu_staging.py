"""The benchmark of the host's work for engine roc-gpu runs, and its record has a table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.docs.render import section
from benchmarks.loaders import gpu_staging
from fixres.pipelines.roc.gpu.crop_plan import HEADER_SIZE, ROWS
from fixres.pipelines.roc.layout import BYTES
from fixres.pipelines.sampling.crops import crop_boxes
from fixres.pipelines.spec import InputError, LoaderConfig, TrainCrop
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
    steps = ["pack", "resident", "plan", "lines", "memcpy", "roc"]
    assert {step: len(times) for step, times in result["microseconds"].items()} == dict.fromkeys(steps, 2)
    table = section(content)
    assert "| 32 | 1 |" in table and "| px | KB a crop | pack | resident | plan | lines | memcpy | roc |" in table


def test_bounds_are_those_of_the_same_rows(tmp_path: Path) -> None:
    path = write_coded_roc(tmp_path / "x.beton", [(60, 80), (90, 70)] * 4)
    work = gpu_staging.HostWork(LoaderConfig(path, TrainCrop(), 32, batch_size=8))
    indices, sizes = np.arange(8), work._reader.sizes
    chosen = crop_boxes(TrainCrop(), 0, 0, indices, sizes, 32)
    drawn = [(indices, chosen._replace(yxhw=chosen.yxhw.astype(np.float64)))]
    plans, counts = work._planned(*drawn[0], 32)
    num_bytes = sum(end - start for plan in plans for start, end in work._rows(plan))
    assert num_bytes == (counts[:, BYTES] - plans[:, HEADER_SIZE]).sum()
    (lines,), (size,) = work._bounds(drawn, 32)
    assert size == counts[:, BYTES].sum() and num_bytes / 64 <= len(lines) < num_bytes / 64 + plans[:, ROWS].sum()


def test_a_file_without_records_is_refused(tmp_path: Path) -> None:
    path = write_coded_beton(tmp_path / "x.beton", [(40, 40)] * 2)
    with pytest.raises(InputError, match="has no RoC records"):
        gpu_staging.measure(gpu_staging.GPUStagingOptions(data=path, batch_size=2))
