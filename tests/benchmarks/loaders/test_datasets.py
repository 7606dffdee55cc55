"""The benchmark of data sets in a DataLoader runs, and its record has a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.docs.render import section
from benchmarks.loaders import datasets
from fixres.reporting.records import read_record


def test_all_data_sets_are_measured(coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "datasets.json"
    words = ["--data", coded_folder, "--work-dir", tmp_path / "work", "--json", target, "--num-images", 24]
    words += ["--batch-size", 8, "--rounds", 1, "--train-res", 32, "--num-workers", 0]
    monkeypatch.setattr(sys, "argv", ["datasets", *map(str, words)])
    datasets.main()
    results = read_record(target, "datasets")["results"]
    assert [one["name"] for one in results] == [
        "ImageFolder",
        "CropDataset, folder",
        "CropDataset, RoC",
        "CropDataset, RoC, 2 views",
        "fixres.Loader, RoC",
    ]
    assert all(one["images_per_second"] > 0 for one in results) and results[0]["relative_speed"] == 1
    assert "| 32 | ImageFolder |" in section(read_record(target, "datasets"))
