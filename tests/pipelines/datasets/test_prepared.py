"""The engine that "auto" chooses, and its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixres.pipelines.conversion.converter import convert
from fixres.pipelines.conversion.task import ConversionConfig
from fixres.pipelines.datasets import prepared
from fixres.pipelines.datasets.prepared import PreparedData, choose_engine
from fixres.pipelines.spec import DALIOptions, DataConfig, EvalCrop
from tests.coded import write_coded_folder


@pytest.mark.parametrize(
    ("device", "installed", "engine", "words"),
    [
        ("cpu", True, "roc", "on the CPU"),
        ("cpu", False, "roc", "on the CPU"),
        ("cuda", True, "roc-dali", "cuda decodes"),
        ("cuda:1", True, "roc-dali", "cuda:1 decodes"),
        ("cuda", False, "roc", r"pip install 'roc-fixres[dali]'"),
    ],
)
def test_auto_depends_on_hardware_and_packages(
    monkeypatch, device: str, installed: bool, engine: str, words: str
) -> None:
    monkeypatch.setattr(prepared, "is_installed", lambda _: installed)
    choice = choose_engine("auto", device)
    assert choice.engine == engine and words in choice.why
    assert choice.why.startswith(f"engine {engine}: ") and "\n" not in choice.why


@pytest.mark.parametrize(("format", "engine"), [("roc", "roc-dali"), ("ffcv", "roc")])
def test_auto_reads_converted_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, engine: str) -> None:
    monkeypatch.setattr(prepared, "is_installed", lambda _: True)
    for split in ("train", "val"):
        folder = write_coded_folder(tmp_path / "photos" / split, [(60, 70)] * 4)
        convert(folder, tmp_path / "stored" / f"{split}.beton", ConversionConfig(format, num_workers=0, progress=False))
    data = PreparedData(DataConfig(str(tmp_path / "stored"), "auto", tmp_path / "work"), "cuda")
    assert data.engine == engine and ("no RoC records" in data.engine_why) == (format == "ffcv")


def test_a_named_engine_is_chosen() -> None:
    assert choose_engine("torch", "cuda").engine == "torch"


def test_settings_of_dali_reach_the_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        write_coded_folder(tmp_path / "photos" / split, [(60, 70)] * 4)
    options = DALIOptions(prefetch=5)
    config = DataConfig(str(tmp_path / "photos"), "torch", tmp_path / "work", num_workers=0, dali=options)
    data, taken = PreparedData(config, "cpu"), []
    monkeypatch.setattr(prepared, "open_loader", lambda engine, config: taken.append((engine, config)))
    data("val", crop=EvalCrop(), resolution=32, batch_size=2)
    assert taken[0][0] == "torch" and taken[0][1].dali == options
    assert data.prepare().describe()["engine_why"] == data.engine_why == "engine torch: as configured"
