"""Commands on generated checkpoints and recipes succeed, or end in one line and exit code 2, within time and memory.

FIXRES_HOSTILE=500 tries 500 of each kind; `python -m tests.hostile` says more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NUM = os.environ.get("FIXRES_HOSTILE", "15")


def test_commands_on_untrusted_files() -> None:
    command = [sys.executable, "-m", "tests.hostile", NUM]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=7200)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    summaries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["kind"], one["num"], one["faults"]) for one in summaries] == [
        ("checkpoints", int(NUM), 0), ("recipes", int(NUM), 0)]  # fmt: skip
    assert all(one["succeeded"] and one["refused"] for one in summaries), summaries
