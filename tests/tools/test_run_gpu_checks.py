"""The script for GPU machines, with a fake Python that logs its calls and fails where the test wants it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "run_gpu_checks.sh"
PARTS = [
    "tests",
    "decoder",
    "nvjpeg_backends",
    "fidelity",
    "throughput",
    "dali_stages",
    "train_step",
    "end_to_end_step",
    "scaling",
]
PARTS += ["fault_tolerance", "demo"]


def start(
    tmp_path: Path, *parts: str, fails: str = "?", slow: str = "?", limit: int = 60
) -> tuple[int, list[str], str]:
    """Exit code, the calls of Python, stderr. Calls that contain `fails` fail; calls that contain `slow` take long."""
    python, calls = tmp_path / "python", tmp_path / "calls"
    cases = f'*"{slow}"*) exec sleep 60;; *"{fails}"*) exit 1;;'
    python.write_text(f'#!/bin/sh\necho "$*" >>"{calls}"\ncase "$*" in {cases} esac\n')
    python.chmod(0o755)
    (tmp_path / "photos").mkdir(exist_ok=True)
    settings = {"PYTHON": str(python), "THREADS": "3", "RESULTS": str(tmp_path / "records"), "LIMIT": str(limit)}
    done = subprocess.run(
        [SCRIPT, "photos", *parts], cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True, timeout=60
    )
    return done.returncode, calls.read_text().splitlines() if calls.exists() else [], done.stderr


def test_all_parts_run_and_each_benchmark_writes_its_record(tmp_path: Path) -> None:
    code, calls, _ = start(tmp_path)
    assert code == 0 and len(calls) == 1 + len(PARTS) + 1 + 6  # is there a GPU?, fixtures, six engines that are tried
    records = [call.partition("--json ")[2] for call in calls if "--json" in call]
    assert records == [f"{tmp_path}/records/{part}_gpu.json" for part in PARTS[1:-1]]
    assert all(f"--data {tmp_path}/photos" in call for call in calls if "--data" in call)
    engines = "--engines roc-gpu,roc-dali,dali,roc,ffcv,torchvision-gpu --train-res 128,160,224"
    assert sum(engines in call for call in calls) == 2


def test_after_a_failed_part_the_others_run(tmp_path: Path) -> None:
    code, calls, said = start(tmp_path, fails="-m benchmarks.training.train_step")
    assert code == 1 and len(calls) == 1 + len(PARTS) + 1 + 6 and "failed: train_step\n" in said


def test_without_a_failed_engine_the_others_are_measured(tmp_path: Path) -> None:
    code, calls, said = start(tmp_path, "throughput", "end_to_end_step", fails="--engines ffcv ")
    assert code == 1 and "failed: engine-ffcv\n" in said
    assert sum("--engines roc-gpu,roc-dali,dali,roc,torchvision-gpu " in call for call in calls[-2:]) == 2


@pytest.mark.parametrize("part", PARTS)
def test_parts_run_alone(tmp_path: Path, part: str) -> None:
    code, calls, _ = start(tmp_path, part)
    assert code == 0 and len(calls) == {"throughput": 8, "end_to_end_step": 8, "decoder": 3}.get(part, 2)


def test_a_part_that_takes_too_long_is_interrupted(tmp_path: Path) -> None:
    code, calls, said = start(
        tmp_path, "train_step", "fault_tolerance", slow="-m benchmarks.training.train_step", limit=1
    )
    assert code == 1 and "failed: train_step\n" in said and "fault_tolerance_overhead" in calls[-1]


@pytest.mark.parametrize(
    ("words", "message"), [((), "give a folder"), (("photos", "speed"), "part speed does not exist")]
)
def test_mistakes_are_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "photos").mkdir()
    done = subprocess.run([SCRIPT, *words], cwd=tmp_path, capture_output=True, text=True)
    assert (
        done.returncode == 2 and done.stderr.startswith(f"run_gpu_checks: {message}") and done.stderr.count("\n") == 1
    )
