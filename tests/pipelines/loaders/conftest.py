"""Engine `roc-gpu` on a GPU, or with the host build of its kernels in place of one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fixres.pipelines.loaders import open_loader
from fixres.pipelines.loaders.base import BaseLoader
from tests.pipelines.loaders.gpu_engine import config
from tests.pipelines.roc.gpu import host_build, host_launcher

DEVICES = [
    pytest.param("cpu", marks=host_build.needs_compiler),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]


@pytest.fixture(params=DEVICES)
def open_ours(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., BaseLoader]:
    """Opens the engine on a GPU, or with the host build in its place."""
    if request.param == "cpu":
        host_launcher.install(monkeypatch)
    return lambda path, **changes: open_loader("roc-gpu", config(path, device=request.param, **changes))
