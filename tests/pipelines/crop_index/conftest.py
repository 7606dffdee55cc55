"""A folder of images of several kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.pipelines.crop_index.made import NUM_JPEGS, jpeg


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Class folders; one image is progressive, one is a PNG file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(NUM_JPEGS):
        path = tmp_path / "data" / f"class{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number, progressive=number == 5))
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "class0" / "plain.png")
    return tmp_path / "data"
