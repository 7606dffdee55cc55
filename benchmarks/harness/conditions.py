"""What a measured speed depends on beside versions and commit: storage, page cache, GPU driver, load."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "gpfs", "beegfs", "glusterfs", "9p", "fuse.sshfs"}
_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


def conditions(data: Path | None = None, page_cache: str | None = None) -> dict[str, Any]:
    """Conditions of a measurement, to be asked for when it begins.

    Args:
        data: what is read, for its storage.
        page_cache: "warm", "cold", "both", or None where nothing is read.
    """
    from fixres.observability.environment import capture

    more: dict[str, Any] = {"gpu_driver": gpu_driver(), "load_average": os.getloadavg()}
    if data is not None:
        more["storage"] = storage(data)
    if page_cache is not None:
        more["page_cache"] = page_cache
    return capture() | more | {"written": time.strftime("%Y-%m-%d %H:%M")}


def gpu_driver(version: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of NVIDIA's kernel driver, or None without one; nvidia-smi is asked where containers hide the file."""
    try:
        first = version.read_text().splitlines()[0]
    except (OSError, IndexError):
        return _asked_driver()
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", first)
    return found.group(1) if found else None


def _asked_driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return (said.split() or [None])[0]


def storage(path: Path, mounts: str | None = None) -> dict[str, str]:
    """File system and kind of device ("ssd", "disk", "memory", "network" or "unknown") below a path.

    Args:
        path: something that exists.
        mounts: the text of /proc/self/mountinfo, for tests.
    """
    try:
        text = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    except OSError:
        return {"file_system": "unknown", "device": "unknown"}
    resolved, best = path.resolve(), ("", "unknown", "")
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()[0]
        point = fields[4].replace("\\040", " ")
        if resolved.is_relative_to(point) and len(point) >= len(best[0]):  # of equal ones the last is on top
            best = (point, kind, fields[2])
    return {"file_system": best[1], "device": _device(best[1], best[2])}


def _device(file_system: str, number: str) -> str:
    if file_system in _NETWORK or file_system in _MEMORY:
        return "network" if file_system in _NETWORK else "memory"
    place = Path("/sys/dev/block") / number
    for queue in (place / "queue", place.resolve().parent / "queue"):  # a partition's queue is its disk's
        try:
            return "disk" if (queue / "rotational").read_text().strip() == "1" else "ssd"
        except OSError:
            continue
    return "unknown"
