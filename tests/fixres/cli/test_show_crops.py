"""Contact sheets and `fixres show-crops`: the crops of an engine in a picture; errors are one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixres.cli.main import call as call_command
from fixres.pipelines.inspection.contact_sheet import draw_sheet, first_crops
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import InputError
from tests.pipelines.loaders.loading import config

ROOT = Path(__file__).resolve().parents[3]


def test_the_sheet_holds_the_crops(coded_folder: Path) -> None:
    with open_loader("torch", config(coded_folder, resolution=48)) as loader:
        images, captions = first_crops(loader, 7)
    assert [caption.split()[0] for caption in captions] == list("0123456")
    sheet = np.asarray(draw_sheet([("one", images[:3], captions[:3]), ("two", images[3:], captions[3:])], 3))
    rows = {tuple(image[24].ravel()) for image in images}
    windows = {tuple(line[x : x + 48].ravel()) for line in sheet for x in (4, 56, 108)}
    assert rows <= windows


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["fixres show-crops", *map(str, arguments)])
    call_command("show-crops", sys.argv[1:])


def test_command(coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, coded_folder, tmp_path / "crops.png", "--num-images", 4, "--epochs", 2, "--test-res", 160)
    with Image.open(tmp_path / "crops.png") as sheet:
        assert sheet.width == 4 * 164 + 4
    os.mkfifo(tmp_path / "fifo")
    for arguments, word in (
        ((coded_folder, tmp_path / "x.png", "--engine", "no"), "dali-slice"),
        ((tmp_path / "nowhere", tmp_path / "x.png"), "does not exist"),
        ((coded_folder, tmp_path / "x.png", "--num-images", 0), "--num-images 0"),
        ((coded_folder, tmp_path / "x.jpg"), r"x\.jpg must be a \.png file"),
        ((coded_folder, tmp_path / "x.png", "--test-res", 0), "resolution=0 is not supported"),
        ((coded_folder, tmp_path / "x.png", "--epochs", 10**6), "images of 128 px is too large; ask for"),
        ((coded_folder, tmp_path), r"must be a \.png file"),
        ((tmp_path / "fifo", tmp_path / "x.png"), "neither a file nor a folder"),
    ):
        with pytest.raises(InputError, match=word):
            call(monkeypatch, *arguments)
    assert not (tmp_path / "x.png").exists() and not (tmp_path / "x.jpg").exists()


def test_more_samples_than_the_data_has(coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples are drawn in rows, and the picture is not wider than they need."""
    num = len(list(coded_folder.rglob("*.jpg")))
    call(monkeypatch, coded_folder, tmp_path / "x.png", "--num-images", 10**12, "--epochs", 0, "--train-res", 32)
    with Image.open(tmp_path / "x.png") as sheet:
        assert sheet.width == min(num, 32) * 36 + 4


@pytest.mark.slow
def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "tools" / "show_crops.py"),
        str(tmp_path / "nowhere"),
        str(tmp_path / "x.png"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "does not exist" in done.stderr and len(done.stderr.splitlines()) == 1
