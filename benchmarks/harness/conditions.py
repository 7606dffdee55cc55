"""Conditions of a measurement: versions and commit, storage, page cache, GPU driver, load."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from fixres.models.precision import Precision

_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "gpfs", "beegfs", "glusterfs", "9p", "fuse.sshfs"}
_MEMORY = {"tmpfs", "ramfs", "devtmpfs"}


def conditions(
    data: Path | None = None, page_cache: str | None = None, precision: Precision | None = None
) -> dict[str, Any]:
    """Conditions of a measurement; call it at the start. `page_cache` is "warm", "cold" or "both" if `data` is read."""
    from fixres.observability.environment import capture

    more: dict[str, Any] = {"gpu_driver": gpu_driver(), "load_average": os.getloadavg()}
    if data is not None:
        more["storage"] = storage(data)
    if page_cache is not None:
        more["page_cache"] = page_cache
    if precision is not None:
        more |= {"precision": precision.name, "device": str(precision.device)}
    return capture() | more | {"written": time.strftime("%Y-%m-%d %H:%M")}


def gpu_driver(version: Path = Path("/proc/driver/nvidia/version")) -> str | None:
    """Version of NVIDIA's kernel driver, None without one; nvidia-smi is called if a container hides the file."""
    try:
        first = version.read_text().splitlines()[0]
    except (OSError, IndexError):
        return _driver_of_nvidia_smi()
    found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", first)
    return found.group(1) if found else None


def _driver_of_nvidia_smi() -> str | None:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return (output.split() or [None])[0]


def storage(path: Path) -> dict[str, str]:
    """File system and kind of device ("ssd", "disk", "memory", "network" or "unknown") that hold a path, or will."""
    partitions = {one.mountpoint: one.fstype for one in psutil.disk_partitions(all=True)}  # the last is on top
    resolved = next(place for place in (path.resolve(), *path.resolve().parents) if place.exists())
    point = max((one for one in partitions if resolved.is_relative_to(one)), key=len, default="")
    kind, number = partitions.get(point, "unknown"), resolved.stat().st_dev
    return {"file_system": kind, "device": _device(kind, f"{os.major(number)}:{os.minor(number)}")}


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
