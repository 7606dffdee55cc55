"""Stored sizes: a smaller and a worse image is a smaller file and a worse crop; boxes are those of the originals."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks.loaders import stored_sizes
from benchmarks.loaders.tables import stored_sizes_table
from fixres.pipelines.conversion.presets import PRESETS
from tests.coded import jpeg
from tests.pipelines.roc.conftest import photo


def test_smaller_images_are_worse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"{number}.jpg").write_bytes(jpeg(photo(210 + 30 * number, 280, number), quality=97))
    monkeypatch.setattr(stored_sizes, "PAIRS", ((280, 95), (140, 95), (140, 50)))
    words = ["--data", photos, "--work-dir", tmp_path / "work", "--train-res", "48", "--json", tmp_path / "x.json"]
    monkeypatch.setattr(sys, "argv", ["stored_sizes", *map(str, [*words, "--num-images", 3])])
    stored_sizes.main()
    content = json.loads((tmp_path / "x.json").read_text())
    fine, small, worse = content["results"]
    assert fine["bytes_per_image"] > 2 * small["bytes_per_image"] > 2.5 * worse["bytes_per_image"]
    psnr = [one["crops"][0]["mean_psnr"] for one in content["results"]]
    assert min(psnr[:2]) > psnr[2] and psnr[0] > 28  # crops of the first come from its half-size level
    assert "| - | 140 | 50 |" in stored_sizes_table(content)


def test_each_preset_is_measured() -> None:
    assert set(PRESETS.values()) <= set(stored_sizes.PAIRS)
