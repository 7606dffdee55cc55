"""The CUDA kernels compiled by g++ as host code: the double of a GPU in tests."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

import pytest

from fixres.pipelines.roc.gpu.arguments import Batch, Launch
from fixres.pipelines.roc.gpu.crop_plan import NUM_PLAN
from fixres.pipelines.roc.gpu.nvrtc import KERNELS

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="the host build of the kernels needs g++")
HERE = Path(__file__).parent
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
THREADED = ("-fsanitize=thread", "-DREAL_THREADS", "-g")
_COMMON = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off", "-pthread")
_LOCK = threading.Lock()
_KERNELS = ("fill_taps", "decode_segments", "resample", "resample_bicubic", "decode_indexed")


def build(source: str, *options: str, kernels: Path = KERNELS) -> Path:
    """Compiles a file of this folder with the kernels; results are kept by the digest of everything that goes in."""
    digest = hashlib.sha256(" ".join(options).encode())
    for file in sorted([*kernels.iterdir(), HERE / source]):
        digest.update(file.read_bytes())
    folder = Path(tempfile.gettempdir(), f"roc-fixres-host-builds-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{source}-{digest.hexdigest()[:20]}"
    if not target.exists():
        partial = target.with_name(f"{target.name}.{os.getpid()}")
        command = ["g++", *_COMMON, *options, "-I", str(kernels), "-o", str(partial), str(HERE / source)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        partial.rename(target)
    return target


@cache
def load(*options: str) -> ctypes.CDLL:
    """The kernels as a shared library."""
    loaded = ctypes.CDLL(str(build("host_build.cpp", "-fPIC", "-shared", *options)))
    assert loaded.size_of(0) == 8 * NUM_PLAN and loaded.size_of(1) == ctypes.sizeof(Batch)
    return loaded


def run(loaded: ctypes.CDLL, launch: Launch, batch: Batch) -> None:
    """Runs a kernel's whole grid; one at a time, because shared memory is static."""
    with _LOCK:
        loaded.run_kernel(_KERNELS.index(launch.kernel), ctypes.byref(batch), *launch.num_blocks)
