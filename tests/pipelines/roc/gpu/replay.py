"""Batches as files for replay.cpp, which runs the kernels under sanitizers without Python."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tests.pipelines.roc.gpu.decoding import Crops, Prepared, by_cpu, prepare


def write_batch(path: Path, crops: Crops, packed: bool = True) -> Path:
    """Writes a batch, and engine `roc`'s codes and images of it."""
    images, codes, _ = by_cpu(crops)
    return write_prepared(path, prepare(crops, packed), codes, images)


def write_prepared(path: Path, batch: Prepared, codes: np.ndarray, images: np.ndarray) -> Path:
    """Writes a batch, and the codes and images that are expected."""
    _, decode, resample, *_ = batch.launches()
    how = decode.num_blocks[1], resample.num_blocks[1], decode.kernel == "decode_indexed"
    sizes = np.array([len(codes), batch.resolution, batch.stored.size, batch.scratch_size, *how], np.int64)
    with open(path, "wb") as file:
        for array in (sizes, batch.plans, batch.level_boxes, batch.codes, batch.stored, codes, images):
            array.tofile(file)
    return path


def replay(
    program: Path, batch: Path, timeout: float = 250, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Runs a build of replay.cpp on a batch, with variables of the environment besides those of this process."""
    command = [program, batch]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | environment)
