"""Sizes of a data set's images against Pillow's, from tables and from headers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.pipelines.inspection.image_headers import image_sizes
from fixres.pipelines.sources import open_source
from fixres.pipelines.spec import InputError
from tests.coded import coded_image, jpeg
from tests.pipelines.loaders.loading import write_coded_beton, write_coded_shards


def counts(sizes: object) -> list[tuple[int, int]]:
    return sorted((int(h), int(w)) for h, w in sizes)


def test_headers(coded_folder: Path, coded_sizes: list[tuple[int, int]]) -> None:
    looked_at = image_sizes(open_source(coded_folder))
    assert counts(looked_at.sizes) == counts(coded_sizes) and looked_at.bad_samples == ()
    assert looked_at.sizes.dtype == np.int64
    files = sorted(coded_folder.rglob("*.jpg"))
    assert [tuple(size) for size in looked_at.sizes] == [Image.open(file).size[::-1] for file in files]


def test_random_samples_are_the_same_each_time(coded_folder: Path, coded_sizes: list[tuple[int, int]]) -> None:
    first, again = (image_sizes(open_source(coded_folder), 7).sizes for _ in range(2))
    assert first.shape == (7, 2) and (first == again).all()
    # Not the first seven, which are of one class.
    assert counts(first) != counts(image_sizes(open_source(coded_folder)).sizes[:7])
    assert set(counts(first)) <= set(coded_sizes)


def test_a_table_gives_all_sizes(tmp_path: Path, coded_sizes: list[tuple[int, int]]) -> None:
    write_coded_beton(tmp_path / "x.beton", coded_sizes)
    assert counts(image_sizes(open_source(tmp_path / "x.beton"), 3).sizes) == counts(coded_sizes)


def test_shards(tmp_path: Path, coded_sizes: list[tuple[int, int]]) -> None:
    write_coded_shards(tmp_path / "shards", coded_sizes)
    assert counts(image_sizes(open_source(tmp_path / "shards")).sizes) == counts(coded_sizes)


def test_bad_images_are_reported(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for k in range(3):
        (tmp_path / "a" / f"{k}.jpg").write_bytes(jpeg(coded_image(50, 60)) if k else b"<html>")
    looked_at = image_sizes(open_source(tmp_path))
    assert counts(looked_at.sizes) == [(50, 60)] * 2
    assert len(looked_at.bad_samples) == 1 and "0.jpg: cannot be decoded" in looked_at.bad_samples[0]
    for k in (1, 2):
        (tmp_path / "a" / f"{k}.jpg").write_bytes(b"")
    with pytest.raises(InputError, match="all of 3 images looked at cannot be used"):
        image_sizes(open_source(tmp_path))
    with pytest.raises(InputError, match="0 samples to look at"):
        image_sizes(open_source(tmp_path), 0)
