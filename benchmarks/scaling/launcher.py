"""Starts a job of several processes with torch's elastic launcher and brings back what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.scaling.worker import Spec
from pipelines.spec import InputError

_PATIENCE = 40.0  # seconds; the launcher gives its processes 30 to end
_NUM_LINES = 20  # of what a broken job said


def run_job(spec: Spec, processes: int, torch_threads: int) -> dict[str, Any]:
    """Runs `benchmarks.scaling.worker` in so many processes; returns what their main one wrote.

    The job does not hear Ctrl-C itself; it is ended when this function is left.

    Args:
        spec: what to measure; its output is set here.
        processes: on this machine.
        torch_threads: of each process's CPU operators, unless OMP_NUM_THREADS is set.

    Raises:
        InputError: a mistake that a process found, or a job that broke.
    """
    with tempfile.TemporaryDirectory(prefix="scaling-") as name:
        folder = Path(name)
        spec = replace(spec, output=str(folder / "windows.json"))
        spec.write(folder / "spec.json")
        with open(folder / "said", "wb") as said:
            job = subprocess.Popen(
                _command(processes, folder / "spec.json"),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env=_environment(torch_threads),
                start_new_session=True,
            )
            try:
                code = job.wait()
            finally:
                _end(job)
        if code or not Path(spec.output).exists():
            raise InputError(_why(folder, processes, code))
        return json.loads(Path(spec.output).read_text())


def _command(processes: int, spec: Path) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launcher, "-m", "benchmarks.scaling.worker", str(spec)]


def _environment(torch_threads: int) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"OMP_NUM_THREADS": str(torch_threads)} | os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _end(job: subprocess.Popen) -> None:
    """Ends the launcher, which ends its processes: they have sessions of their own, where no signal of ours arrives."""
    if job.poll() is not None:
        return
    job.terminate()
    try:
        job.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        job.kill()
        job.wait()


def _why(folder: Path, processes: int, code: int) -> str:
    mistakes = sorted(folder.glob("windows.json.mistake-*"))
    if mistakes:
        return mistakes[0].read_text()
    said = (folder / "said").read_text(errors="replace").splitlines()
    print("\n".join(said[-_NUM_LINES:]), file=sys.stderr)
    return f"the job of {processes} processes ended with exit code {code}; the last that it said is above"
