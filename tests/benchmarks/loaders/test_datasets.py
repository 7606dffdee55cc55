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
    words += ["--batch-size", 8, "--rounds", 1, "--train-res", 32, "--num-workers", 0, "--multi-crop"]
    monkeypatch.setattr(sys, "argv", ["datasets", *map(str, words)])
    datasets.main()
    results = read_record(target, "datasets")["results"]
    names = ["ImageFolder"]
    for name in ("CropDataset, folder", "CropDataset, RoC", "fixres.Loader, RoC"):
        names += [name, f"{name}, 2 views"]
    multi_crop = ["ImageFolder", "CropDataset, RoC", "fixres.Loader, RoC"]
    assert [one["name"] for one in results] == names + names + multi_crop
    assert [one["jpeg_files"] for one in results] == ["encoded"] * 7 + ["published"] * 7 + ["encoded"] * 3
    assert all(one["images_per_second"] > 0 for one in results) and results[0]["relative_speed"] == 1
    assert [one["name"] for one in results if "cost_of_views" in one] == names[2::2] * 2
    assert "| 32 | encoded | ImageFolder |" in section(read_record(target, "datasets"))
