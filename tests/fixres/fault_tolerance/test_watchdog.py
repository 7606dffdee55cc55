"""A process without progress ends and writes where it hangs; one that is slow, or was suspended, does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fixres.fault_tolerance.watchdog import Watchdog
from fixres.pipelines.runtime.exit_codes import EXIT_STALLED

START = """
import ctypes, os, select, sys, threading, time
from pathlib import Path
from fixres.fault_tolerance.watchdog import Watchdog
def sleep_here(): time.sleep(60)
def wait_for_a_pipe(): select.select([os.pipe()[0]], [], [])
def wait_for_a_lock(): threading.Lock().acquire() and (lock := threading.Lock()).acquire() and lock.acquire()
def call_into_c(): ctypes.CDLL(None).sleep(60)
def compute():
    while True: sum(range(1000))
def keep_the_gil(): ctypes.PyDLL(None).sleep(int(sys.argv[3]))
with Watchdog(Path(sys.argv[1]), float(sys.argv[2]), rank=3) as watchdog:
"""
END = "print('came to the end', flush=True)\n"


def started(folder: Path, seconds: float, body: str, *arguments: str, **options: object) -> subprocess.Popen:
    code = START + "".join(f"    {line}\n" for line in body.splitlines()) + END
    command = [sys.executable, "-c", code, str(folder), str(seconds), *arguments]
    options = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE} | options
    return subprocess.Popen(command, text=True, **options)


@pytest.mark.parametrize("how", ["sleep_here", "wait_for_a_pipe", "wait_for_a_lock", "call_into_c", "compute"])
def test_a_stall_ends_the_process_and_is_explained(how: str, tmp_path: Path) -> None:
    process = started(tmp_path / "run", 0.5, f"watchdog.heartbeat('waiting for other ranks')\n{how}()")
    out, err = process.communicate(timeout=30)
    file = tmp_path / "run" / "stalled-rank3.txt"
    assert process.returncode == EXIT_STALLED == 76 and out == ""
    assert err == (
        "rank 3 has been waiting for other ranks for 0.5 s, longer than fault_tolerance.stall_seconds; "
        f"stacks: {file}; --resume auto continues from the last training checkpoint\n"
    )
    text = file.read_text()
    assert text.startswith(f"rank 3, process {process.pid}: waiting for other ranks since ")
    assert f"in {how}" in text and "in _watch" in text  # the main thread and the watching one


def test_a_slow_run_with_progress_is_not_ended(tmp_path: Path) -> None:
    process = started(
        tmp_path, 1.5, "for _ in range(10):\n    watchdog.heartbeat('training step')\n    time.sleep(0.2)"
    )
    assert process.communicate(timeout=30) == ("came to the end\n", "") and process.returncode == 0
    assert not list(tmp_path.iterdir())


def test_the_same_word_again_is_a_sign_of_life() -> None:
    """Compared is the call, not the text."""
    watchdog = Watchdog(Path("x"), 1)
    watchdog.heartbeat("step")
    before = watchdog._now
    watchdog.heartbeat("step")
    assert watchdog._now is not before


@pytest.mark.parametrize("seconds", [0, -1])
def test_it_can_be_switched_off(seconds: int, tmp_path: Path) -> None:
    process = started(tmp_path, seconds, "assert threading.active_count() == 1\ntime.sleep(0.3)")
    assert process.communicate(timeout=30) == ("came to the end\n", "")


def test_a_suspended_process_is_no_stall(tmp_path: Path) -> None:
    """Three times as long as a stall takes, within one and the same step; then it stalls in earnest."""
    body = "watchdog.heartbeat('testing')\nprint('go', flush=True)\ntime.sleep(60)"
    process = started(tmp_path, 1.0, body)
    assert process.stdout.readline() == "go\n"
    begun = time.monotonic()
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(3.0)
    os.kill(process.pid, signal.SIGCONT)
    time.sleep(0.2)
    assert process.poll() is None and not list(tmp_path.iterdir())
    assert process.wait(timeout=30) == EXIT_STALLED
    assert time.monotonic() - begun > 3.7  # almost a second of its own, and the pause
    process.communicate()


def test_after_the_block_nothing_watches(tmp_path: Path) -> None:
    process = started(tmp_path, 0.3, "pass")
    assert process.communicate(timeout=30) == ("came to the end\n", "")
    with Watchdog(tmp_path, 0.5):
        pass
    time.sleep(0.8)  # this very process would end


def test_an_error_in_the_block_comes_through(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Watchdog(tmp_path, 30):
        raise ZeroDivisionError


def test_a_folder_that_cannot_be_written_still_ends_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    process = started(tmp_path / "file", 0.3, "watchdog.heartbeat('saving')\nsleep_here()")
    _, err = process.communicate(timeout=30)
    assert process.returncode == EXIT_STALLED
    assert "in sleep_here" in err and "stalled-rank3.txt could not be written" in err.splitlines()[-1]


def test_a_reader_of_stderr_that_hangs_does_not_keep_it_alive(tmp_path: Path) -> None:
    """A blocked terminal or log collector is one of the things that stop a run."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    process = started(tmp_path, 0.3, "watchdog.heartbeat('logging')\nprint('x', file=sys.stderr)", stderr=write)
    assert process.wait(timeout=30) == EXIT_STALLED
    assert (tmp_path / "stalled-rank3.txt").read_text().splitlines()[0].startswith("rank 3")
    os.close(read), os.close(write)
    process.communicate()


def test_with_the_gil_held_the_stacks_are_written_and_the_process_continues(tmp_path: Path) -> None:
    process = started(tmp_path, 0.5, "time.sleep(0.2)\nkeep_the_gil()\nwatchdog.heartbeat('again')", "3")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "came to the end\n")
    assert "Timeout (0:00:01)!" in err and "in keep_the_gil" in err
