"""Fixtures that several folders of tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from fixres.pipelines.runtime.numba_cache import cache_folder
from tests.coded import write_coded_folder

cache_folder()  # says once that kernels are compiled, before tests look at the messages of commands

# Small networks only lose by threads, and a busy machine makes torch's thread barriers many times slower.
torch.set_num_threads(1)

# A shell's background jobs ignore Ctrl-C, and so would all processes that tests start and then interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def coded_sizes() -> list[tuple[int, int]]:
    """Heights and widths of the coded folder's 24 images: landscape, portrait, square, odd and tiny sides."""
    generator = np.random.default_rng(5)
    sizes = [(96, 128), (128, 96), (101, 101), (33, 250), (251, 40), (375, 500)]
    return sizes + [tuple(int(v) for v in generator.integers(60, 300, 2)) for _ in range(18)]


@pytest.fixture(scope="session")
def coded_folder(tmp_path_factory: pytest.TempPathFactory, coded_sizes: list[tuple[int, int]]) -> Path:
    """An ImageFolder of 24 coded images in 2 classes."""
    return write_coded_folder(tmp_path_factory.mktemp("coded"), coded_sizes)


@pytest.fixture(scope="session")
def imagenet_samples() -> Path:
    """500 real ImageNet photographs; tests that want them skip where they are absent."""
    folder = SHARED / "imagenet-samples"
    if not folder.is_dir():
        pytest.skip("the folder of real photographs is not here")
    return folder
