"""What each thread of `decode_segments` does for real crops, counted by the host build of the kernels."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fixres.pipelines.roc.gpu.arguments import Batch
from fixres.pipelines.roc.gpu.crop_plan import COLUMNS, INTERVAL, MCU_HEIGHT, MCU_WIDTH, ROWS
from fixres.pipelines.roc.gpu.nvrtc import KERNELS
from fixres.pipelines.spec import InputError

WARP = 32  # threads that run in step


class Counts(NamedTuple):
    """Of one crop; arrays are int32 (segments, blocks of a segment), the last one (segments,)."""

    codes: np.ndarray
    """Huffman codes of each block of 64 coefficients."""
    long_codes: np.ndarray
    """Those of more than 10 bits."""
    words: np.ndarray
    """Steps of the removal of stuffed zeros."""


class Counter:
    """The host build.

    Raises:
        InputError: there is no g++.
    """

    def __init__(self) -> None:
        if shutil.which("g++") is None:
            raise InputError("g++ is missing, which builds the kernels to count what they do; install it")
        source = Path(__file__).with_name("counts.cpp")
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "counts.so")
            command = ["g++", "-std=c++17", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-I", KERNELS, source]
            subprocess.run([*command, "-o", library], check=True)
            self._library = ctypes.CDLL(str(library))

    def count(self, stored: np.ndarray, plans: np.ndarray, scratch_size: int) -> list[Counts]:
        """Counts of each crop; the arrays are those of `gpu_fixtures.fixtures`."""
        scratch, codes = np.empty(scratch_size // 16 + 1, np.complex128), np.zeros(1, np.int64)  # aligned to 16 bytes
        batch = Batch(num=1, bytes=stored.ctypes.data, scratch=scratch.ctypes.data, codes=codes.ctypes.data)
        found = []
        for plan in plans.copy():
            batch.crops = plan.ctypes.data
            num_segments = int(plan[ROWS] * plan[COLUMNS])
            blocks = int(plan[INTERVAL] * (plan[MCU_HEIGHT] * plan[MCU_WIDTH] // 64 + 2))
            made = np.zeros((3, num_segments * blocks + 1), np.int32)
            num = self._library.count(ctypes.byref(batch), *(ctypes.c_void_p(row.ctypes.data) for row in made))
            if codes[0] or num != num_segments * blocks:
                raise InputError("a crop cannot be decoded, or is gray; take color photographs")
            by_block = made[:2, :num].reshape(2, num_segments, blocks)
            found.append(Counts(*by_block, made[2, :num_segments]))
        return found


def by_warps(values: np.ndarray) -> np.ndarray:
    """Values of segments, (n, ...), in warps of 32, (warps, 32, ...); threads without a segment have zeros."""
    missing = -len(values) % WARP
    padded = np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])
    return padded.reshape(-1, WARP, *values.shape[1:])
