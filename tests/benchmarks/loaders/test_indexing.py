"""The benchmark of the index runs on a few files, and its table says what was measured."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from benchmarks.loaders.indexing import IndexingOptions, measure
from benchmarks.loaders.tables import indexing_table
from tests.pipelines.roc.conftest import photo


def test_all_ways_are_measured(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(photo(60, 90 + number)).save(tmp_path / f"{number}.jpg", progressive=number == 1)
    record = measure(IndexingOptions(data=tmp_path, num_images=3, train_res=32, rounds=1))
    names = [one["name"] for one in record["results"]]
    assert names == ["decode", "fixres index", "whole", "first epoch", "second epoch"]
    assert all(one["cpu_us_per_image"] > 0 for one in record["results"])
    assert 0 < record["index_bytes"] < record["image_bytes"] and record["note"].startswith("3 files")
    assert indexing_table(record).count("\n") == 8
