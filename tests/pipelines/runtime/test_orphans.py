"""No process outlives a killed parent: workers of engine torch and of conversions, and children of benchmarks."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.pipelines.loaders.loading import write_coded_beton

ROOT = Path(__file__).resolve().parents[3]
SERVER_POOL = """
import sys, time, types
import numpy as np
from fixres.pipelines.runtime.process_pool import map_chunks
sys.modules["nvidia.dali"] = types.ModuleType("nvidia.dali")  # a pool whose workers come from a server
results = map_chunks(abs, np.arange(100), 1, 2)
next(results); print("ready", flush=True); time.sleep(100)
"""
ENGINE_TORCH = """
import sys, time
from pathlib import Path
from fixres.pipelines.loaders import open_loader
from tests.pipelines.loaders.loading import config
batches = iter(open_loader("torch", config(Path(sys.argv[1]), num_workers=2)))
next(batches); print("ready", flush=True); time.sleep(100)
"""
BENCHMARK = """
import sys, time
from benchmarks.harness.subprocesses import guard, start
child = start([sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(100)"])
how, sign = sys.argv[1].split()
watcher = guard(how, int(sign) * child.pid)
time.sleep(100)
"""


def has_ended(process: psutil.Process) -> bool:
    """A process whose new parent does not wait for it stays as a zombie."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextmanager
def family(code: str, argument: object) -> Iterator[tuple[subprocess.Popen, list[psutil.Process]]]:
    """A program that has printed a line, and all processes below it."""
    program = subprocess.Popen([sys.executable, "-c", code, str(argument)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert program.stdout.readline() == b"ready\n"
        children = psutil.Process(program.pid).children(recursive=True)
        yield program, children
    finally:
        for process in [program, *children]:
            if process is program or not has_ended(process):
                process.kill()
        program.wait()
        program.stdout.close()


@pytest.mark.parametrize(
    ("code", "argument", "number"),
    [
        pytest.param(ENGINE_TORCH, "coded.beton", 3, id="engine torch: server and workers"),
        pytest.param(SERVER_POOL, "", 3, id="pool behind a server"),
        pytest.param(BENCHMARK, "KILL -1", 1, id="benchmark that kills a group"),
        pytest.param(BENCHMARK, "TERM 1", 1, id="benchmark that ends a launcher"),
    ],
)
def test_no_process_outlives_a_killed_parent(code: str, argument: str, number: int, tmp_path: Path) -> None:
    if argument.endswith(".beton"):
        argument = str(write_coded_beton(tmp_path / argument, [(40, 50)] * 20))
    with family(code, argument) as (program, children):
        assert len(children) >= number
        program.kill()
        give_up = time.monotonic() + 20
        while not all(map(has_ended, children)) and time.monotonic() < give_up:
            time.sleep(0.02)
        assert [child.cmdline() for child in children if not has_ended(child)] == []
