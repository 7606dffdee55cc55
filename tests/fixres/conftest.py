"""A small network and real loaders for the tests of learning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import create_model
from fixres.models.precision import Precision
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import EvalCrop, Loader, LoaderConfig

CPU = Precision("fp32", torch.device("cpu"))
TINY = ModelConfig("resnet10t", {"channels": [8, 16, 16, 24], "stem_width": 8})


@pytest.fixture
def tiny_net() -> nn.Module:
    """A resnet10t of 24 channels and 2 classes with fixed weights."""
    torch.manual_seed(0)
    return create_model(TINY, num_classes=2)


@pytest.fixture
def open_coded(coded_folder: Path) -> Callable[..., Loader]:
    """Opens the coded folder (24 images, 2 classes) with the reference engine, without workers."""

    def open_it(split: str = "train", **fields: object) -> Loader:
        values = {"crop": EvalCrop(), "resolution": 32, "batch_size": 8, "num_workers": 0} | fields
        return open_loader("torch", LoaderConfig(path=coded_folder, **values))

    return open_it


@pytest.fixture
def teacher(tmp_path: Path, open_coded: Callable[..., Loader]) -> Path:
    """A checkpoint for the coded folder's classes, with an input size of its own."""
    torch.manual_seed(9)
    info = CheckpointInfo(TINY.name, TINY.kwargs, open_coded().classes, 32, 40, 0.875)
    save_checkpoint(tmp_path / "teacher.pt", create_model(TINY, 2), info)
    return tmp_path / "teacher.pt"
