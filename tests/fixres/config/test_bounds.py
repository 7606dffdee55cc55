"""Small recipes cannot ask for almost unlimited time or memory; odd values are one line."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from fixres.config.parsing import parse_recipe
from fixres.config.yaml_text import read_value, read_yaml
from fixres.experiment.report import read_report
from fixres.pipelines.spec import InputError
from fixres.reporting.records import read_record

POINTS = json.dumps([[k, 32] for k in range(1001)])
BOMB = "\n".join(["a0: &a0 [1, 1]", *(f"a{k + 1}: &a{k + 1} !!pairs [x: *a{k}, y: *a{k}]" for k in range(30))])
VARIANTS = "\n".join(f"  v{k}: {{}}" for k in range(65))
BOUNDS = [
    (f"variants: {{a: {{resolution: {{points: {POINTS}}}}}}}", r"resolution\.points may be 1000 points at most"),
    (f"variants: {{a: {{resolution: {{points: {json.dumps([[k, 32] for k in range(100_000)])}}}}}}}", "more than"),
    (f"variants:\n{VARIANTS}", "variants may be 64 variants at most, not 65"),
    ("variants: {a: {epochs: 1000000000}}", r"variants\.a: epochs may be 100000 epochs at most"),
    ("variants: {a: {finetune: {epochs: 1000000000}}}", r"finetune\.epochs may be 100000 epochs at most"),
    (f"sweep: {list(range(32, 97))}", "sweep may be 64 resolutions at most"),
    ("optim: {batch_size: 1000000000}", r"optim\.batch_size may be 131072 images at most"),
    ("optim: {per_process: 1000000000}", r"optim\.per_process may be 131072 images at most"),
    (f"optim: {{steps: {{milestones: {list(range(1, 1002))}}}}}", r"milestones may be 1000 epochs at most"),
    ("data: {num_workers: 1000000}", r"num_workers=1000000 must be from 0 to 1024"),
    ("profile: 1000000", "profile may be 1000 steps at most"),
    (f"name: {'x' * 101}", "must be up to 100 letters"),
    (BOMB, "a value of type tuple"),
    ("name: !!set {a, b}", "a value of type set"),
    ("name: !!binary YWJj", "a value of type bytes"),
    ("sweep: !!bool x", "a value that does not fit its tag"),
    ("seed: !!int ''", "a value that does not fit its tag"),
    (f"seed: 0x{'f' * 5000}", "a whole number of more than 64 bits"),
    (f"seed: {'9' * 5000}", "not readable as YAML"),
    ("optim: {lr: 1e400}", r"optim\.lr=inf must be a finite number"),
    ("sweep: [1e400]", r"sweep\[0\]=inf must be a finite number"),
    ("seed: [[[[[[[[]]]]]]]]", "seed=.* must be a whole number"),
    ('run_dir: "a\\0b"', "some that no file name can have"),
    ('run_dir: "\\ud800"', "some that no file name can have"),
    (f"run_dir: {'x' * 5000}", "text of more than 4096 characters"),
    (f"a: {'[' * 2000}", "not readable as YAML"),
    ("#" * 600_000, "more than 500000 characters"),
]


@pytest.mark.parametrize(("text", "message"), BOUNDS, ids=lambda value: value[:40])
def test_bounds(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(InputError, match=message) as caught:
        parse_recipe(["--config", str(path)])
    assert time.perf_counter() - start < 5
    assert str(caught.value).isprintable() and len(str(caught.value)) < 2000


def test_what_is_within_bounds_is_read() -> None:
    assert read_yaml("a: &a [1, 1e3, x]\nb: *a") == {"a": [1, 1000.0, "x"], "b": [1, 1000.0, "x"]}
    assert read_value(BOMB) == BOMB and read_value("2024-01-01") == "2024-01-01"
    assert read_yaml("- " + "\n- ".join("1" for _ in range(9990)))[-1] == 1


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"version": 1e400}', "1e400", "[]", "\xff"])
def test_damaged_records_and_reports(text: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="is not a record"):
        read_record(tmp_path / "report.json")
    if text in ("[" * 100_000, "{", "\xff"):
        with pytest.raises(InputError, match="is damaged"):
            read_report(tmp_path)
