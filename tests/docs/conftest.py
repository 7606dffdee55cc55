"""A folder with everything that the pages' examples name: small photographs, and checkpoints of a small network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from tests.coded import NUM_CODES, coded_image, jpeg

CLASSES = tuple(f"class_{k}" for k in range(10))
NUM_IMAGES = {"train": 260, "val": 20}  # a batch of 256 for training
CHECKPOINTS = ("demo/fast/trained.pt", "demo/fast/finetuned.pt", "photos/fast/trained.pt", "photos/fast/finetuned.pt")
SMALL = {"channels": [8, 8, 16, 16], "stem_width": 8}  # arguments of the network in the checkpoints


class TinyNetwork(nn.Sequential):
    """A network that trains at thousands of images a second on one core."""

    def __init__(self, num_classes: int = len(CLASSES)) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 8, stride=8), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, num_classes),
        )  # fmt: skip


@pytest.fixture(scope="session")
def example_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of all examples, made once."""
    root = tmp_path_factory.mktemp("examples")
    images = [jpeg(coded_image(60, 80, code)) for code in range(NUM_CODES)]
    for split, num in NUM_IMAGES.items():
        for i in range(num):
            path = root / "photos" / split / CLASSES[i % len(CLASSES)] / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images[i % NUM_CODES])
    (root / "cat.jpg").write_bytes(images[0])
    model = timm.create_model("resnet10t", num_classes=len(CLASSES), **SMALL)
    for name in CHECKPOINTS:
        path = root / "runs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = {"path": str(root / "photos"), "work_dir": "data", "seed": 0}  # of the copy that an example gets
        info = CheckpointInfo("resnet10t", SMALL, CLASSES, 64, 96, 0.875, finetuned="finetuned" in name, data=data)
        save_checkpoint(path, model, info)
    return root


@pytest.fixture
def example_folder(example_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current and the cache folder, with a copy of the data; timm's large networks are small here."""
    shutil.copytree(example_data, tmp_path, dirs_exist_ok=True)
    for name in ("imagenet", "FOLDER", "DATA", "PHOTOS", "SOURCE", "IMAGENET"):
        (tmp_path / name).symlink_to("photos")
    for name in ("MODEL", "MODEL_A", "MODEL_B"):
        (tmp_path / name).symlink_to("runs/demo/fast/finetuned.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    create_model = timm.create_model

    def small_model(name: str, **options: object) -> nn.Module:
        return TinyNetwork(**options) if name in ("resnet18", "resnet50") else create_model(name, **options)

    monkeypatch.setattr(timm, "create_model", small_model)
    return tmp_path


@pytest.fixture
def given() -> dict[str, object]:
    """What README's example expects from its reader: a network, and a function that trains it."""
    model = TinyNetwork()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)

    def train_step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"model": model, "train_step": train_step}
