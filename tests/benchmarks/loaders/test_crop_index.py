"""The benchmark of the crop index runs, and its record has a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.docs.render import section
from benchmarks.loaders import crop_index
from fixres.reporting.records import read_record
from tests.coded import write_coded_folder
from tests.pipelines.roc.conftest import needs_turbojpeg


@needs_turbojpeg
def test_files_are_measured_as_they_are_and_as_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, target = write_coded_folder(tmp_path / "data", [(150, 200), (260, 194)]), tmp_path / "crop_index.json"
    words = ["--data", data, "--json", target, "--rounds", 2, "--train-res", 32, "--work-dir", tmp_path / "work"]
    monkeypatch.setattr(sys, "argv", ["crop_index", *map(str, words)])
    crop_index.main()
    content = read_record(target, "crop_index")
    assert [one["files"] for one in content["results"]] == ["published", "stored"]
    for one in content["results"]:
        (crops,) = one["crops"]
        assert one["num_images"] == 2 and one["num_not_indexed"] == 0 and 0 < one["index_share"] < 0.2
        assert all(len(times) == 2 for times in crops["microseconds"].values())
        assert crops["num_different_from_libjpeg"] == 0
        assert crops["share_scaled"] > 0 and crops["psnr_mean"] > 40
    published = content["results"][0]
    assert 0 < published["coarse_share"] < 0.5 and published["crops"][0]["coarse"]["psnr_mean"] > 30
    assert published["crops"][0]["coarse"]["share_scaled"] == 0.5  # the other image is too small
    assert "| published |" in section(content)
