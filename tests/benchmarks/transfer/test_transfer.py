"""The benchmark of backbones: its runs, its record and its table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.docs.render import section
from benchmarks.transfer.run import classifier_top1, main
from benchmarks.transfer.tables import transfer_table
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from tests.fixres.families import RESNET, create
from tests.fixres.transfer.layouts import write_folders

KWARGS = {"channels": [8, 16, 24, 32], "stem_width": 8}
RECIPE = (
    "{optim: {lr: 1, batch_size: 2, warmup_epochs: 0}, base_size: 48, crop_size: 48, epochs: 1, device: cpu, "
    "precision: bf16}"
)


def training(name: str, seed: int, mean_iou: float, top1: float | None) -> dict[str, Any]:
    return {"backbone": name, "seed": seed, "top1": top1, "pixel_accuracy": 0.9, "mean_iou": mean_iou, "model": "m",
            "epochs": 2, "num_train": 8, "num_val": 4, "train_seconds": 10.0}  # fmt: skip


def test_the_table_compares_with_the_first_backbone_seed_by_seed() -> None:
    trainings = [training("large", 1, 0.50, 0.8), training("small", 1, 0.52, 0.7), training("large", 2, 0.40, 0.9),
                 training("small", 2, 0.42, 0.8), training("random weights", 1, 0.1, None)]  # fmt: skip
    lines = transfer_table({"settings": {"task": "segment"}, "trainings": trainings}).splitlines()
    assert lines[2].startswith("| large | 2 | 85.0 ± 7.1 | 90.0 ± 0.0 | 45.0 ± 7.1 |  |  |")
    assert lines[3].startswith("| small | 2 | 75.0 ± 7.1 | 90.0 ± 0.0 | 47.0 ± 7.1 | +2.0 ± 0.0 | +2.0 to +2.0 |")
    assert lines[4].startswith("| random weights | 1 |  | 90.0 | 10.0 | -40.0 | one seed, no interval |")


def test_trains_each_backbone_once_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    net, run = create(RESNET._replace(kwargs=KWARGS)), tmp_path / "run"
    save_checkpoint(run / "small" / "trained.pt", net, CheckpointInfo("resnet10t", KWARGS, ("a", "b"), 32, 32, 1.0))
    report = {"variants": [{"name": "small", "top1": 0.8, "top1_before_finetune": 0.7}]}
    (run / "report.json").write_text(json.dumps(report))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    arguments = ["--task", "segment", "--data", str(write_folders(tmp_path / "folders")), "--random", "--num-workers",
                 "0", "--recipe", str(tmp_path / "recipe.yaml"), "--seeds", "1", "--output", str(tmp_path / "out"),
                 "--backbones", f"{{small: {run}/small/trained.pt}}", "--json", str(tmp_path / "r.json")]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["benchmarks.transfer", *arguments])
    main()
    first = json.loads((tmp_path / "r.json").read_text())
    assert [(one["backbone"], one["top1"]) for one in first["trainings"]] == [("small", 0.7), ("random weights", None)]
    assert ", bf16, torch" in section(first) and first["environment"]["precision"] == "bf16"
    assert first["kind"] == "transfer" and not first["partial"] and str(tmp_path) not in json.dumps(first)
    capsys.readouterr()
    main()
    assert "epoch" not in capsys.readouterr().err  # nothing is trained again
    again = json.loads((tmp_path / "r.json").read_text())
    assert again["trainings"] == first["trainings"]
    assert classifier_top1(run / "small" / "finetuned.pt") == 0.8 and classifier_top1(tmp_path / "x.pt") is None
