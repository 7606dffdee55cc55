"""Records of finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.docs.collect import collect
from benchmarks.docs.render import documents, render, rendered
from benchmarks.harness.records import RESULTS
from benchmarks.training.run_record import record_of
from benchmarks.training.tables import training_table
from fixres.pipelines.spec import InputError
from fixres.reporting.records import VERSION

RECORDS = sorted(RESULTS.glob("*.json"))
ROOT = Path(__file__).parents[3]


def _report(seed: int, top1: float, seconds: float) -> dict[str, Any]:
    def variant(name: str, train_res: int, seconds: float, finetune_seconds: float) -> dict[str, Any]:
        sweep = [{"test_res": 128, "top1": top1}]
        return {
            "name": name, "train_res": train_res, "train_res_by_epoch": [64, train_res], "test_res": 128, "epochs": 2,
            "top1_before_finetune": top1 - 0.01, "top1": top1, "class_mean_top1": top1, "train_seconds": seconds,
            "finetune_seconds": finetune_seconds, "wall_seconds": 2 * seconds, "images_per_second": 9.0,
            "data_wait_share": 0.1, "sweep_before": sweep, "sweep_after": sweep if finetune_seconds else [],
        }  # fmt: skip

    return {
        "variants": [variant("baseline", 128, seconds, 0.0), variant("fast", 96, seconds / 4, seconds / 20)],
        "savings": {"train_time_ratio": 0.3},
        "written": "2026-01-01T00:00:00+00:00",
        "data": {"engine": "torch", "num_train": 10, "num_val": 5, "path": "/somewhere/private"},
        "environment": {"cpu": "x", "command": "train_fast.py --data /somewhere/private"},
        "recipe": {"seed": seed, "run_dir": "/somewhere/private", "data": {"path": "/somewhere/private"}, "name": "r"},
    }


def test_a_record_keeps_numbers_and_conditions_but_no_paths() -> None:
    record = record_of(_report(1, 0.8, 100.0))
    assert record["variants"][1]["sweep_after"] == {"128": 0.8}
    assert record["environment"] == {"cpu": "x"}
    assert "/somewhere" not in json.dumps(record)


def test_seeds_are_averaged_with_their_spread(tmp_path: Path) -> None:
    folders = []
    for seed, top1 in ((1, 0.80), (2, 0.82), (3, 0.84)):
        folders.append(tmp_path / str(seed))
        folders[-1].mkdir()
        (folders[-1] / "report.json").write_text(json.dumps(_report(seed, top1, 100.0)))
    lines = training_table(collect("x", folders, "")).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| torch | baseline | 3 | 64 to 128 px | 128 px | 81.0 ± 2.0 | 82.0 ± 2.0 |")
    assert lines[3].endswith("| 30 ± 0 | 0.30 ± 0.00 |")


def test_an_unfinished_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no report"):
        collect("x", [tmp_path], "")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_in_the_repository_have_their_conditions(path: Path) -> None:
    record = json.loads(path.read_text())
    assert record["version"] == VERSION and record["name"] == path.stem
    for one in record.get("runs", [record]):
        assert {"cpu", "num_cores", "versions", "commit", "commit_clean", "gpu"} <= set(one["environment"])
        assert all(0 < variant["top1"] <= 1 for variant in one.get("variants", []))


def test_documents_and_figure_quote_the_records() -> None:
    stale = [path.name for path, text in rendered().items() if path.read_text() != text]
    assert not stale, "not up to date: run python tools/render_results.py"


def test_every_record_is_shown_in_a_document() -> None:
    shown = "".join(path.read_text() for path in documents())
    assert [path.stem for path in RECORDS if f"<!-- {path.stem}:begin -->" not in shown] == ["train_step"]


def test_a_changed_record_changes_a_document(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    record = json.loads((RESULTS / "demo.json").read_text())
    record["runs"][0]["variants"][0]["top1"] += 0.01
    (tmp_path / "demo.json").write_text(json.dumps(record))
    assert render(text, tmp_path, root="../") != text


def test_a_block_without_end_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text((RESULTS / "demo.json").read_text())
    with pytest.raises(InputError, match="has no <!-- demo:end -->"):
        render("<!-- demo:begin -->\n", tmp_path)
