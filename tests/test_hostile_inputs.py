"""Commands on generated checkpoints and recipes succeed, or end in one line and exit code 2, within time and memory.

FIXRES_HOSTILE=500 tries 500 of each kind; `python -m tests.hostile` says more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.fixres.runs import serving

NUM = os.environ.get("FIXRES_HOSTILE", "15")


@pytest.mark.timeout(7200 if int(NUM) > 100 else 300)
def test_commands_on_untrusted_files(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        child = server.start(NUM, tool="tests.hostile", OUTPUT=tmp_path / "output")
        code, output = server.end(child), (tmp_path / "output").read_text()
        assert code == 0, output[-5000:] + server.errors()[-2000:]
    summaries = [json.loads(line) for line in output.splitlines()]
    assert [(one["kind"], one["num"], one["faults"]) for one in summaries] == [
        ("checkpoints", int(NUM), 0), ("recipes", int(NUM), 0)]  # fmt: skip
    assert all(one["succeeded"] and one["refused"] for one in summaries), summaries
