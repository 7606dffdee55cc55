"""A checkpoint names the data of its training; on its word nothing is written elsewhere, downloaded or searched."""

from __future__ import annotations

import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from fixres.cli.data import data_of
from fixres.cli.main import dispatch
from fixres.config.jobs import EvaluateJob
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.pipelines.spec import DataConfig, InputError
from tests.fixres.conftest import TINY

CLASSES = ("class_00", "class_01")


@pytest.fixture
def weights(tiny_net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a checkpoint that names its data; the current folder is empty, and there is no network."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(urllib.request, "urlopen", lambda *_: pytest.fail("a download"))

    def make(path: object, work_dir: object = here / "data", classes: tuple[str, ...] = CLASSES) -> str:
        data = {"path": str(path), "work_dir": str(work_dir), "seed": 3}
        save_checkpoint(tmp_path / "net.pt", tiny_net, CheckpointInfo(TINY.name, TINY.kwargs, classes, 32, 32, 0.9,
                                                                      data=data))  # fmt: skip
        return str(tmp_path / "net.pt")

    return make


def job(weights: str, **data: Any) -> EvaluateJob:
    return EvaluateJob(weights, device="cpu", data=DataConfig(engine="torch", num_workers=0, **data))


@pytest.mark.parametrize("layout", ["classes", "splits", "splits, one level deeper"])
def test_the_stored_data_is_used(layout: str, weights: Any, coded_folder: Path, tmp_path: Path) -> None:
    place = {"classes": "photos", "splits": "photos/train", "splits, one level deeper": "photos/all/train"}[layout]
    shutil.copytree(coded_folder, tmp_path / place)
    found = data_of(job(weights(tmp_path / "photos")))
    assert (found.path, found.work_dir, found.seed) == (str(tmp_path / "photos"), Path("data"), 3)
    named = job(weights(tmp_path / "photos", "/elsewhere"), path=str(tmp_path / "photos"), work_dir=Path("w"))
    assert data_of(named) == named.data


def test_nothing_is_written_where_a_checkpoint_says(
    weights: Any, coded_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    net = weights(coded_folder, elsewhere)
    message = (
        rf"was trained on .*, which was prepared in {elsewhere}; give --data {coded_folder} --work-dir {elsewhere}"
    )
    for command in ("evaluate", "extract", "activations"):
        with pytest.raises(InputError, match=message):
            dispatch([command, net, "--engine", "roc", "--device", "cpu"])
    assert not elsewhere.exists() and not list(Path().iterdir())


def test_converted_data_needs_no_work_dir(weights: Any, coded_folder: Path, tmp_path: Path) -> None:
    from fixres.pipelines.conversion.converter import convert
    from fixres.pipelines.conversion.task import ConversionConfig
    from fixres.pipelines.sources import open_source

    convert(open_source(coded_folder), tmp_path / "val.beton", ConversionConfig("roc", num_workers=0))
    found = data_of(job(weights(tmp_path / "val.beton", "/elsewhere")))
    assert (found.path, found.work_dir) == (str(tmp_path / "val.beton"), Path("data"))


@pytest.mark.parametrize("path", ["imagenette", "scenes"])
def test_nothing_is_downloaded_or_drawn(path: str, weights: Any) -> None:
    with pytest.raises(InputError, match=rf"was trained on {path}, which is not in data; make it with --data {path}"):
        data_of(job(weights(path)))
    assert not list(Path().iterdir())


def test_a_folder_without_the_classes_is_not_searched(weights: Any, tmp_path: Path) -> None:
    for name in ("a", "b/c", "class_00", "d/class_01"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    for path, classes in ((tmp_path / "photos", CLASSES), ("/", ("usr", "a folder that nobody has"))):
        with pytest.raises(InputError, match="where not all of its classes are; give --data FOLDER"):
            data_of(job(weights(path, classes=classes)))


@pytest.mark.parametrize("path", ["/nowhere", "x" * 5000, "a\0b", "/etc/\x1b[31m"])
def test_paths_that_do_not_exist(path: str, weights: Any) -> None:
    with pytest.raises(InputError, match="which does not exist; give --data FOLDER") as caught:
        data_of(job(weights(path)))
    assert str(caught.value).isprintable()
