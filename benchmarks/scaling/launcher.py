"""Starts a job of several processes with torch's elastic launcher and returns its measurements."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.harness.subprocesses import guard, kill, start
from benchmarks.scaling.worker import Spec
from fixres.pipelines.runtime.atomic_files import write_json
from fixres.pipelines.spec import InputError

_TIMEOUT = 40.0  # seconds; the launcher gives its processes 30 to end
_NUM_LINES = 20  # of the output of a failed job


def run_job(spec: Spec, processes: int, torch_threads: int) -> dict[str, Any]:
    """Runs `benchmarks.scaling.worker` in several processes; returns the result of the main process.

    Sets the output of `spec`. Each process has `torch_threads` for CPU operators, unless OMP_NUM_THREADS is set. Ctrl-C
    does not reach the job; it is terminated when this function ends.

    Raises:
        InputError: a process found a mistake of the user, or the job failed.
    """
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        spec = replace(spec, output=str(folder / "windows.json"))
        write_json(folder / "spec.json", asdict(spec))
        with open(folder / "output", "wb") as output:
            command, threads = _command(processes, folder / "spec.json"), {"OMP_NUM_THREADS": str(torch_threads)}
            job = start(command, threads, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            watcher = guard("TERM", job.pid)
            try:
                code = job.wait()
            finally:
                _end(job)
                kill(watcher)
        if code or not Path(spec.output).exists():
            raise InputError(_why(folder, processes, code))
        return json.loads(Path(spec.output).read_text())


def _command(processes: int, spec: Path) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "-m", "benchmarks.scaling.worker", str(spec)]


def _end(job: subprocess.Popen) -> None:
    """Terminates the launcher, which terminates its processes; our signals do not reach their sessions."""
    if job.poll() is not None:
        return
    job.terminate()
    try:
        job.wait(_TIMEOUT)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()


def _why(folder: Path, processes: int, code: int) -> str:
    mistakes = sorted(folder.glob("windows.json.mistake-*"))
    if mistakes:
        return mistakes[0].read_text()
    output = (folder / "output").read_text(errors="replace").splitlines()
    print("\n".join(output[-_NUM_LINES:]), file=sys.stderr)
    return f"the job of {processes} processes ended with exit code {code}; the end of its output is above"
