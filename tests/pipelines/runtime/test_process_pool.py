"""Worker processes are forks of this process, or of a server once DALI is loaded; what works aside ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import psutil
import pytest

from fixres.pipelines.runtime.process_pool import map_chunks


def parent_of_worker(numbers: np.ndarray) -> tuple[int, int]:
    return int(numbers.sum()), os.getppid()


@pytest.mark.parametrize("has_dali", [False, True])
def test_workers_are_forks_of_this_process_unless_dali_is_loaded(
    has_dali: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_dali:
        monkeypatch.setitem(sys.modules, "nvidia.dali", types.ModuleType("nvidia.dali"))
    else:
        monkeypatch.delitem(sys.modules, "nvidia.dali", raising=False)
    main = sys.modules["__main__"]
    before = main.__spec__, vars(main).get("__file__")
    found = list(map_chunks(parent_of_worker, np.arange(10), 3, 2))
    assert [total for total, _ in found] == [3, 12, 21, 9]
    assert all((parent != os.getpid()) == has_dali for _, parent in found)
    assert (main.__spec__, vars(main).get("__file__")) == before


def write_pid_and_wait() -> None:
    Path(os.environ["PID_FILE"]).write_text(str(os.getpid()))
    time.sleep(100)


def say_worked() -> None:
    print("worked")


_PARENT = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from pathlib import Path
from fixres.pipelines.runtime.process_pool import start_aside
from tests.pipelines.runtime.test_process_pool import write_pid_and_wait

start_aside(write_pid_and_wait)  # no `if __name__ == "__main__"`: the new process must not run this again
while not Path(os.environ["PID_FILE"]).exists():
    time.sleep(0.02)
{{end}}
"""


@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "os._exit(0)",
        "os.kill(os.getpid(), 9)",
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "child = os.fork()\nif child:\n    os.waitpid(child, 0)",  # the fork ends like a program of its own
    ],
)
def test_a_process_aside_ignores_ctrl_c_and_ends_with_its_parent(end: str, tmp_path: Path) -> None:
    pid_file, script = tmp_path / "pid", tmp_path / "script.py"
    interrupts = f"os.kill(int(Path({str(pid_file)!r}).read_text() or 0), 2)\ntime.sleep(0.1)\n"
    script.write_text(_PARENT.format(end="time.sleep(0.2)\n" + interrupts + interrupts + end))
    hostile = tmp_path / "current"
    hostile.mkdir()
    for name in ("threading", "signal", "numpy"):
        (hostile / f"{name}.py").write_text("print(1 / 0)")
    environment = os.environ | {"PID_FILE": str(pid_file)}
    done = subprocess.run(
        [sys.executable, "-E", script], cwd=hostile, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (-9 if "kill" in end else 0, "")
    deadline = time.monotonic() + 20
    while psutil.pid_exists(int(pid_file.read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_aside_that_has_done_its_work_is_gone(tmp_path: Path) -> None:
    script = """
import psutil, time
from fixres.pipelines.runtime.process_pool import start_aside
from tests.pipelines.runtime.test_process_pool import say_worked

start_aside(say_worked)
assert psutil.Process().children()
deadline = time.monotonic() + 20
while psutil.Process().children():  # zombies count
    assert time.monotonic() < deadline
    time.sleep(0.02)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-X", "dev", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "worked\n", "")
