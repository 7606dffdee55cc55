"""The CUDA kernels compiled by g++ as host code: the double of a GPU in tests."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
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
_THREADED = ("-fsanitize=thread", "-DREAL_THREADS", "-g")
_COMMON = ("-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-ffp-contract=off", "-pthread")
_LOCK = threading.Lock()
_KERNELS = ("fill_taps", "decode_segments", "resample", "resample_bicubic", "decode_indexed")


def build(source: str, *options: str, kernels: Path = KERNELS) -> Path:
    """Compiles a file of this folder with the kernels; results are kept by the digest of everything that goes in.

    A process that needs what another one compiles waits for it.
    """
    digest = hashlib.sha256(" ".join(options).encode())
    for file in sorted([*kernels.iterdir(), HERE / source]):
        digest.update(file.read_bytes())
    folder = Path(tempfile.gettempdir(), f"roc-fixres-host-builds-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / f"{source}-{digest.hexdigest()[:20]}"
    with open(target.with_name(f"{target.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            partial = target.with_name(f"{target.name}.{os.getpid()}")
            command = ["g++", *_COMMON, *options, "-I", str(kernels), "-o", str(partial), str(HERE / source)]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            partial.rename(target)
    return target


def build_threaded(folder: Path) -> tuple[Path, list[str]]:
    """Replay with real threads under ThreadSanitizer, and the places of all barriers.

    The barrier numbered $LEFT_OUT is left out. The kernels' copies that this needs are written to `folder`.
    """
    places: list[str] = []
    shutil.copytree(KERNELS, folder)
    with open(folder / "portable.cuh", "a") as file:
        file.write('#include <cstdlib>\nstatic const char *const g_name = getenv("LEFT_OUT");\n')
        file.write("static const int g_left_out = g_name ? atoi(g_name) : -1;\n")
    for source in sorted(folder.glob("*.cuh")):
        if source.name != "portable.cuh":
            lines = source.read_text().splitlines()
            for number, line in enumerate(lines):
                if re.search(r"\bBARRIER;", line):
                    lines[number] = line.replace("BARRIER;", f"if (g_left_out != {len(places)}) BARRIER;")
                    places.append(f"{source.name}:{number + 1}")
            source.write_text("\n".join(lines) + "\n")
    return build("replay.cpp", *_THREADED, kernels=folder), places


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
