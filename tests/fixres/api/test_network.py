"""`fixres.load` and predictions: the pixels and scores that evaluation uses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fixres.api.loader import Loader
from fixres.api.network import Network, Prediction, load
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.pipelines.spec import InputError
from tests.fixres.conftest import TINY


@pytest.fixture
def network(tiny_net: nn.Module, tmp_path: Path) -> Network:
    info = CheckpointInfo(TINY.name, TINY.kwargs, ("class_00", "class_01"), 32, 48, 0.875, "bicubic")
    save_checkpoint(tmp_path / "net.pt", tiny_net, info)
    return load(tmp_path / "net.pt", device="cpu")


def test_predictions_are_those_of_evaluation(network: Network, coded_folder: Path) -> None:
    files = sorted(coded_folder.rglob("*.jpg"))
    options = {"train": False, "interpolation": "bicubic", "engine": "torch", "num_workers": 0, "device": "cpu"}
    with Loader(coded_folder, 48, 5, **options) as loader:
        with torch.inference_mode():
            wanted = torch.cat([network.model(images).softmax(1) for images, _ in loader])
    found = network.predict(files, batch_size=7)
    assert len(found) == len(files)
    for probabilities, row in zip(wanted, found, strict=True):
        best = int(probabilities.argmax())
        assert row[0].label == best and row[0].name == network.classes[best]
        assert row[0].probability == pytest.approx(float(probabilities[best]), abs=1e-5)
        assert sum(one.probability for one in row) == pytest.approx(1, abs=1e-5)


def test_all_kinds_of_images_give_the_same(network: Network, coded_folder: Path) -> None:
    file = next(coded_folder.rglob("*.jpg"))
    picture = Image.open(file)
    kinds = [file, str(file), file.read_bytes(), picture, np.asarray(picture)]
    rows = [network.predict(kind) for kind in kinds]
    assert all(row == rows[0] for row in rows) and isinstance(rows[0][0], Prediction)
    together = network.predict(kinds)
    assert [row[0].label for row in together] == [row[0].label for row in rows]


def test_top_k_and_resolution(network: Network, coded_folder: Path) -> None:
    file = next(coded_folder.rglob("*.jpg"))
    assert len(network.predict(file, top_k=1)) == 1 and len(network.predict(file)) == 2
    assert network.predict([]) == []
    assert network.predict(file, resolution=64) != network.predict(file)


def test_the_transform_gives_the_loaders_input(network: Network, coded_folder: Path) -> None:
    files = sorted(coded_folder.rglob("*.jpg"))
    options = {"train": False, "interpolation": "bicubic", "engine": "torch", "num_workers": 0, "device": "cpu"}
    with Loader(coded_folder, 48, len(files), **options) as loader:
        images, _ = next(iter(loader))
    for file, image in zip(files, images, strict=True):
        assert torch.equal(network.transform(file), image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nothing.jpg", "nothing.jpg does not exist or is not a file"),
        (b"GIF89a", "image bytes"),
        (np.zeros((4, 4), np.uint8), r"an image array must be uint8 \(H, W, 3\) in RGB, not uint8 \(4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"not uint8 \(0, 4, 3\)"),
        (3, "images=3 must be text, os.PathLike, bytes, Image, numpy.ndarray or a list of such"),
        ([b"x", None], r"images=\[b'x', None\] must be"),
    ],
)
def test_bad_images_are_named(network: Network, image: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network.predict(image)


def test_truncated_files_are_refused_by_name(network: Network, coded_folder: Path, tmp_path: Path) -> None:
    data = next(coded_folder.rglob("*.jpg")).read_bytes()
    half = data[: len(data) // 2]
    (tmp_path / "ended.jpg").write_bytes(half + b"\xff\xd9")
    (tmp_path / "open.jpg").write_bytes(half)
    with pytest.raises(InputError, match=r"ended.jpg: the JPEG is damaged \(premature end of data segment\)"):
        network.predict(tmp_path / "ended.jpg")
    with pytest.raises(InputError, match=r"open.jpg: cannot be decoded \(image file is truncated"):
        network.predict(str(tmp_path / "open.jpg"))
    with pytest.raises(InputError, match=r"open.jpg: cannot be decoded \(image file is truncated"):
        network.predict(Image.open(tmp_path / "open.jpg"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"top_k": -1}, "top_k=-1 must be at least 1"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5 must be a whole number"),
        ({"resolution": "128"}, "resolution='128' must be a whole number or None"),
        ({"resolution": 4}, "resolution=4 is not supported"),
    ],
)
def test_wrong_settings_are_named(network: Network, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        network.predict([], **arguments)


def test_loading_names_mistakes(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    with pytest.raises(InputError, match=r"net.pt names its network, resnet10t; omit arch and model_kwargs"):
        load(file, arch="resnet18")
    with pytest.raises(InputError, match="omit arch and model_kwargs"):
        load(file, model_kwargs={"stem_width": 16})
    assert load(file, arch=TINY.name, device="cpu").info == network.info
    with pytest.raises(InputError, match="device='gpu' is unknown; use auto, cpu or cuda"):
        load(file, device="gpu")
    with pytest.raises(InputError, match=r"path=3 must be text or os.PathLike"):
        load(3)
    torch.save(network.model.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(InputError, match="does not name its network; add arch with timm's name"):
        load(tmp_path / "bare.pt")


def test_gray_and_transparent_pictures_are_accepted(network: Network) -> None:
    gray = Image.fromarray(np.arange(64, dtype=np.uint8).repeat(64).reshape(64, 64))
    assert network.predict(gray) == network.predict(gray.convert("RGB")) == network.predict(gray.convert("RGBA"))
