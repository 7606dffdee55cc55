"""`fixres activations` on a small checkpoint: its figures against a plain forward pass, mistakes in one line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fixres.cli.main import call as call_command
from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.factory import Normalize, create_model
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import EvalCrop, InputError, LoaderConfig
from tests.coded import write_coded_folder

_MODEL = ModelConfig("resnet10t", {"channels": [8, 16, 16, 24], "stem_width": 8})


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """train/ and val/ of 12 small images in 2 classes."""
    for split in ("train", "val"):
        write_coded_folder(tmp_path / "photos" / split, [(60 + 3 * i, 90 - 2 * i) for i in range(12)])
    return tmp_path / "photos"


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return create_model(_MODEL, 2).eval()


@pytest.fixture
def checkpoint(tmp_path: Path, photos: Path, net: nn.Module) -> Path:
    classes = tuple(sorted(path.name for path in (photos / "val").iterdir()))
    save_checkpoint(tmp_path / "x.pt", net, CheckpointInfo(_MODEL.name, _MODEL.kwargs, classes, 32, 48, 0.875))
    return tmp_path / "x.pt"


def call(monkeypatch: pytest.MonkeyPatch, checkpoint: Path, photos: Path, *arguments: object) -> None:
    finetuned = ["--model", checkpoint, "--data", photos, "--engine", "torch", "--num-workers", 0]
    finetuned += [
        "--work-dir",
        photos.parent / "work",
        "--device",
        "cpu",
        "--precision",
        "fp32",
        "--batch_size",
        5,
    ]
    monkeypatch.setattr(sys, "argv", ["fixres activations", *map(str, [*finetuned, *arguments])])
    call_command("activations", sys.argv[1:])


def pooled(net: nn.Module, photos: Path, resolution: int) -> np.ndarray:
    """The classifier's input for all test images, by timm's own functions."""
    config = LoaderConfig(photos / "val", EvalCrop(0.875), resolution, 12, num_workers=0)
    with open_loader("torch", config) as loader, torch.inference_mode():
        (batch,) = loader
        return net.forward_head(net.forward_features(Normalize()(batch.images)), pre_logits=True).numpy()


def test_figures(
    net: nn.Module,
    checkpoint: Path,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call(monkeypatch, checkpoint, photos, "--test_res", "[64,32]", "--plot", tmp_path / "cdf.png")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    at_train = np.sort(pooled(net, photos, 32), axis=None)
    for resolution, line in zip((32, 64), lines, strict=True):
        values = np.sort(pooled(net, photos, resolution), axis=None)
        zeros, mean, std, distance = map(float, re.findall(r"(?:zeros|mean|deviation|to 32 px) ([\d.]+)", line))
        assert line.startswith(f"{resolution} px: ") and line.endswith("12 images of 24 channels")
        assert zeros == pytest.approx(100 * (values == 0).mean(), abs=0.4)  # one value may fall to either side of 0
        assert (mean, std) == pytest.approx((values.mean(), values.std()), abs=1e-4)
        assert distance == pytest.approx(np.abs(values - at_train).mean(), abs=1e-4)
    with Image.open(tmp_path / "cdf.png") as picture:
        assert picture.format == "PNG" and len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_without_resolutions_the_checkpoints_own(
    checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(monkeypatch, checkpoint, photos, "--num_images", 7)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("32 px") and second.startswith("48 px")
    assert "distance to 32 px 0.0000, 7 images" in first and "7 images" in second


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--test_res", "[3]"), "resolution=3 is not supported"),
        (("--num_images", "0"), "num_images=0"),
        (("--plot", "x.gif"), r"plot=x\.gif must be a \.png"),
    ],
)
def test_mistakes_are_named(
    arguments: tuple[str, ...], word: str, checkpoint: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=word) as caught:
        call(monkeypatch, checkpoint, photos, *arguments)
    assert "\n" not in str(caught.value)
