"""A resumed run: no line of metrics twice, no incomplete line, and a word about another precision."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixres.config.recipe import Recipe
from fixres.experiment.run_folder import ENVIRONMENT, METRICS, RunLog

_LINES = "".join(json.dumps({"variant": "fast", "kind": "train", "step": step}) + "\n" for step in range(3))


@pytest.mark.parametrize(
    ("on_disk", "at_checkpoint", "kept"),
    [
        (_LINES, len(_LINES) * 2 // 3, 2),  # an epoch was written after the training checkpoint
        (_LINES, len(_LINES), 3),
        (_LINES[: len(_LINES) // 3], len(_LINES), 1),  # a power failure removed two lines that the checkpoint counts
        (_LINES[:-5], len(_LINES), 2),
        (None, len(_LINES), 0),
        (_LINES, 0, 0),
    ],
)
def test_metrics_are_complete_lines_from_before_the_checkpoint(
    on_disk: str | None, at_checkpoint: int, kept: int, tmp_path: Path
) -> None:
    if on_disk is not None:
        (tmp_path / METRICS).write_text(on_disk)
    log = RunLog(tmp_path, Recipe(), {}, at_checkpoint)
    log.write(
        "fast", "finetune", 9, {"num_images": 1, "seconds": 1.0, "wait_seconds": 0.0, "resolution": 32, "loss": 1.0}
    )
    assert log.num_bytes == (tmp_path / METRICS).stat().st_size
    log.close()
    read = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["step"] for line in read] == [*range(kept), 9]


@pytest.mark.parametrize(
    "began, now, is_said",
    [
        ('{"precision": "bf16"}', "fp32", True),
        ('{"precision": "bf16"}', "bf16", False),
        ("{}", "fp32", False),
        ("[]", "fp32", False),
        ("no JSON", "fp32", False),
        (None, "fp32", False),
    ],
)
def test_a_resumed_run_says_that_its_precision_is_another(
    began: str | None, now: str, is_said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if began is not None:
        (tmp_path / ENVIRONMENT).write_text(began)
    RunLog(tmp_path, Recipe(), {"precision": now}, 0).close()
    line = f"{tmp_path}: the run began with precision bf16; on this machine it continues with {now}"
    assert (line in capsys.readouterr().err.replace("\n", " ")) == is_said
