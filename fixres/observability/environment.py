"""The conditions of a measurement: hardware, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fixres.pipelines.runtime.allocator import allocator

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "numba",
    "pillow",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "ffcv",
)


def capture() -> dict[str, Any]:
    """Hardware, operating system, allocator, package versions and the project's commit, as values for JSON."""
    return {
        "cpu": _cpu_name(),
        "num_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "allocator": allocator(),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        **_commit(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> dict[str, Any]:
    """The commit, and whether the checkout has no changes; None if unknown.

    The file of `git archive` comes first: in an unpacked archive git would find an enclosing checkout.
    """
    archived = (_ROOT / ".git_archival.txt").read_text().strip() if (_ROOT / ".git_archival.txt").exists() else "$"
    if not archived.startswith("$"):
        return {"commit": archived, "commit_clean": None}
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {"commit": _git("rev-parse", "HEAD"), "commit_clean": None if changed is None else changed == ""}


def _git(*arguments: str) -> str | None:
    """The output of a git command in the project's checkout; None if it fails."""
    command = ["git", "-C", str(_ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
