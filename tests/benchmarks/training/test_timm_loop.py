"""timm's loop trains with timm's loader and with ours, and its record has a table."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.docs.render import section
from benchmarks.training import timm_loop
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.reporting.records import read_record
from tests.coded import write_coded_folder


def test_both_loaders_are_trained_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for split in ("train", "val"):
        write_coded_folder(tmp_path / "photos" / split, [(40 + i, 50 - i) for i in range(20)])
    target = tmp_path / "timm_loop.json"
    words = ["--data", tmp_path / "photos", "--work-dir", tmp_path, "--json", target, "--epochs", 1, "--seeds", "3,4"]
    words += ["--train-res", 32, "--test-res", 32, "--batch-size", 8, "--num-workers", 0, "--device", "cpu"]
    words += ["--model", "resnet10t", "--model-kwargs", "{channels: [8, 8, 8, 8]}"]
    monkeypatch.setattr(sys, "argv", ["timm_loop", *map(str, words)])
    timm_loop.main()
    trainings = read_record(target, "timm_loop")["results"]
    assert [(one["loader"], one["seed"]) for one in trainings] == [
        ("timm", 3), ("fixres.timm", 3), ("timm", 4), ("fixres.timm", 4)
    ]  # fmt: skip
    assert all(one["num_images"] == 16 and one["loss"] > 0 and 0 <= one["top1"] <= 1 for one in trainings)


def test_the_table_compares_seed_by_seed(tmp_path: Path) -> None:
    trainings = [
        {"loader": loader, "seed": seed, "top1": top1, "top1_without_ema": top1 - 0.1, "train_seconds": seconds}
        for loader, seed, top1, seconds in
        (("timm", 1, 0.5, 20.0), ("timm", 2, 0.7, 20.0), ("fixres.timm", 1, 0.52, 10.0), ("fixres.timm", 2, 0.72, 10.0))
    ]  # fmt: skip
    environment = {"num_cores": 2, "cpu": "CPU", "gpu": None, "commit": "abc", "versions": {"torch": "2"}}
    record = {"version": 3, "kind": "timm_loop", "name": "timm_loop", "note": "", "environment": environment}
    write_json(tmp_path / "record.json", record | {"results": trainings})
    ours = section(read_record(tmp_path / "record.json", "timm_loop")).splitlines()[3]
    assert ours == "| fixres.timm | 2 | 62.0 ± 14.1 | +2.0 ± 0.0 | +2.0 to +2.0 | 52.0 ± 14.1 | 0.50 ± 0.00 |"
