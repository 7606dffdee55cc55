"""Each command chooses how OpenMP waits before it imports torch, which loads OpenMP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

# Runs a module as the main program until it asks for torch or ends; prints the policy of that moment.
_UNTIL_TORCH = """
import json, os, runpy, sys
import numba, numpy, psutil, pydantic, tqdm, yaml  # once for all; none of them imports torch
assert "torch" not in sys.modules

class UntilTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            end()

def end():
    policy = [os.environ.get(variable) for variable in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")]
    os.write(pipe, json.dumps([name, policy]).encode() + b"\\n")
    os._exit(0)

for name in sys.argv[1:]:
    if os.fork() == 0:
        pipe = os.dup(1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.meta_path.insert(0, UntilTorch())
        sys.argv[1:] = ["--help"]
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        finally:
            end()
    os.wait()
"""


def _policies(names: list[str], **environment: str) -> dict[str, list[str | None]]:
    """OMP_WAIT_POLICY and GOMP_SPINCOUNT of each main program."""
    clean = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    command = [sys.executable, "-c", _UNTIL_TORCH, *names]
    done = subprocess.run(command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=200)
    return dict(json.loads(line) for line in done.stdout.splitlines())


def _main_programs() -> list[str]:
    files = [file for folder in ("tools", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    mains = [file for file in files if re.search(r"^if __name__ == .__main__.", file.read_text(), re.MULTILINE)]
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in mains)


@pytest.mark.slow
def test_every_command_lets_threads_sleep_after_a_short_wait_before_torch_is_imported() -> None:
    names = _main_programs()
    assert {"tools.train_fast", "benchmarks.tricks.__main__", "benchmarks.throughput.engine_worker"} <= set(names)
    assert _policies(names) == {name: ["passive", "1000"] for name in names}


def test_the_users_choice_stays() -> None:
    assert _policies(["tools.train_fast"], OMP_WAIT_POLICY="active") == {"tools.train_fast": ["active", None]}
    assert _policies(["tools.train_fast"], GOMP_SPINCOUNT="5") == {"tools.train_fast": [None, "5"]}
    assert _policies(["tools.train_fast"], KMP_BLOCKTIME="0") == {"tools.train_fast": [None, None]}


def test_an_import_changes_no_environment() -> None:
    code = "import os; before = dict(os.environ); import fixres.pipelines.runtime.exit_codes, tools.train_fast; "
    subprocess.run([sys.executable, "-c", code + "assert os.environ == before"], cwd=ROOT, check=True, timeout=60)
