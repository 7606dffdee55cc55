"""The benchmark of fine-tuning: its table on literal numbers, the command on a tiny network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.finetuning import run as finetuning
from benchmarks.finetuning.tables import finetuning_table
from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import create_model
from fixres.pipelines.spec import InputError
from tests.coded import write_coded_folder

_SMALL = {"channels": [8, 16, 16, 24], "stem_width": 8}


def network(shift: float) -> dict:
    """A network whose accuracies are moved by `shift`."""

    def finetune(variant: str, side: int, top1: float, seconds: list[float]) -> dict:
        return {"variant": variant, "test_res": side, "top1": top1 + shift, "epoch_seconds": seconds}

    return {
        "train_res": 64,
        "before": {"64": 0.60 + shift, "96": 0.70 + shift},
        "activations": [
            {"test_res": 64, "zero_share": 0.25, "distance": 0.0},
            {"test_res": 96, "zero_share": 0.125, "distance": 0.5 + shift},
        ],
        "finetunings": [finetune("classifier", 96, 0.72, [5.0, 0.1, 0.3, 0.2]), finetune("statistics", 96, 0.69, [])],
        "uncached": [finetune("classifier", 96, 0.7225, [5.0, 4.0, 4.2, 3.0])],
    }


def test_means_spreads_and_gains_of_literal_numbers() -> None:
    lines = finetuning_table({"networks": [network(0.0), network(0.02)]}).splitlines()
    assert "| 64 px | 61.0 ± 1.4 | 25.00 ± 0.00 | 0.0000 ± 0.0000 |" in lines
    assert "| 96 px | 71.0 ± 1.4 | 12.50 ± 0.00 | 0.5100 ± 0.0141 |" in lines
    assert "| none | 71.0 ± 1.4 | 0 |" in lines
    assert "| classifier | 73.0 ± 1.4 | +2.0 ± 0.0 |" in lines
    assert "| statistics | 70.0 ± 1.4 | -1.0 ± 0.0 |" in lines
    # Later epochs: medians of 0.1, 0.3, 0.2 and of 4.0, 4.2, 3.0.
    assert "| 96 px | 5.00 ± 0.00 | 0.20 ± 0.00 | 4.00 ± 0.00 | 20 ± 0 | -0.25 ± 0.00 |" in lines
    assert lines[-1].startswith("2 networks")


def test_one_network_has_no_spread() -> None:
    lines = finetuning_table({"networks": [network(0.0)]}).splitlines()
    assert "| classifier | 72.0 | +2.0 |" in lines and lines[-1].startswith("One network")


def test_the_command_measures_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val"):
        write_coded_folder(tmp_path / "photos" / split, [(60 + 3 * i, 90 - 2 * i) for i in range(12)])
    torch.manual_seed(0)
    net = create_model(ModelConfig("resnet10t", _SMALL), 2)
    classes = tuple(sorted(path.name for path in (tmp_path / "photos/val").iterdir()))
    checkpoint, target = tmp_path / "seed-1/small/trained.pt", tmp_path / "finetuning.json"
    checkpoint.parent.mkdir(parents=True)
    save_checkpoint(checkpoint, net, CheckpointInfo("resnet10t", _SMALL, classes, 32, 48, 0.875))
    command = [checkpoint, "--data", tmp_path / "photos", "--work-dir", tmp_path / "work"]
    command += ["--test-res", "64", "--sweep", "32,64", "--epochs", "2", "--batch-size", "4", "--json", target]
    monkeypatch.setattr(sys, "argv", ["finetuning", *map(str, command)])
    finetuning.main()
    content = json.loads(target.read_text())
    (found,) = content["networks"]
    assert found["checkpoint"] == "seed-1" and found["train_res"] == 32
    assert [finetune["variant"] for finetune in found["finetunings"]] == list(finetuning.VARIANTS)
    assert [len(finetune["epoch_seconds"]) for finetune in found["finetunings"]] == [2, 2, 0, 0]
    assert set(found["before"]) == {"32", "64"} and finetuning_table(content) in capsys.readouterr().out
    assert [one["test_res"] for one in found["activations"]] == [32, 64]


def test_mistakes_end_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.pt").write_bytes(b"")
    for more, words in (
        (["nowhere.pt"], "nowhere.pt: no such checkpoint"),
        ([str(tmp_path / "x.pt"), "--test-res", "big"], "test_res.*=big must be a whole number"),
        ([str(tmp_path / "x.pt"), "--epochs", "1"], "epochs=1 must be at least 2"),
        ([], "CHECKPOINTS is missing: Trained weights, one file for each seed; see --help"),
    ):
        monkeypatch.setattr(sys, "argv", ["finetuning", "--data", str(tmp_path), *more])
        with pytest.raises(InputError, match=words):
            finetuning.main()
