"""Exports and checkpoints give the network's logits, classes and transform in timm, onnxruntime and `fixres.load`."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn

import fixres
from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.export import export
from fixres.models.factory import create_model
from fixres.pipelines.spec import InputError
from tests.fixres.conftest import TINY


class Case(NamedTuple):
    """A network, its arguments, its number of classes, and the resolutions of its training and test."""

    name: str
    kwargs: dict
    num_classes: int
    train_res: int
    test_res: int


RESNET = Case(TINY.name, TINY.kwargs, 2, 32, 48)
BLURPOOL = Case("resnet18", {"channels": [8, 16, 16, 24], "aa_layer": "blurpool"}, 3, 32, 48)
VIT = Case("vit_tiny_patch16_224", {"img_size": 32, "embed_dim": 24, "depth": 2, "dynamic_img_size": True}, 4, 32, 48)
# Its windows fit only some sizes, and its position tables belong to one.
SWIN = Case("swin_tiny_patch4_window7_224", {"img_size": 64, "embed_dim": 24, "depths": [1, 1],
            "num_heads": [1, 2], "window_size": 2, "dynamic_img_size": True}, 7, 64, 64)  # fmt: skip
MOBILENET = Case("mobilenetv3_small_050", {}, 11, 32, 40)
CASES = [RESNET, VIT, SWIN, MOBILENET, Case("tf_efficientnet_lite0", {}, 5, 32, 64),
         Case("convnext_atto", {"dims": [8, 16, 24, 32]}, 6, 32, 64)]  # fmt: skip
all_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="the extra onnx is not installed",
)


def network(case: Case) -> fixres.Network:
    """A network with BatchNorm statistics other than those of a new one, and a transform other than ImageNet's."""
    torch.manual_seed(0)
    net = create_model(ModelConfig(case.name, case.kwargs), case.num_classes)
    net.train()(torch.randn(4, 3, case.test_res, case.test_res))
    classes = tuple(f"class {number}" for number in range(case.num_classes))
    info = CheckpointInfo(case.name, case.kwargs, classes, case.train_res, case.test_res, 0.9, "bicubic",
                          mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25), finetuned=True,
                          data={"path": "private", "work_dir": "data", "seed": 0})  # fmt: skip
    return fixres.Network(net, info, "cpu")


def images(case: Case, num: int = 3) -> Tensor:
    return torch.randn(num, 3, case.test_res, case.test_res, generator=torch.Generator().manual_seed(1))


def assert_same(net: nn.Module, case: Case, expected: fixres.Network) -> None:
    """Memory formats differ, so the logits are not the same to the bit."""
    with torch.inference_mode():
        torch.testing.assert_close(net.eval()(images(case)), expected.model(images(case)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [*CASES, BLURPOOL], ids=lambda case: case.name)
def test_timm_loads_checkpoints_by_the_snippet_of_readme(case: Case, tmp_path: Path) -> None:
    net, path = network(case), tmp_path / "net.pt"
    save_checkpoint(path, net.model, net.info)
    info = fixres.load(path, device="cpu").info
    kwargs = info.model_kwargs | ({"aa_layer": timm.layers.BlurPool2d} if "aa_layer" in info.model_kwargs else {})
    loaded = timm.create_model(info.model, num_classes=len(info.classes), checkpoint_path=path, **kwargs)
    assert_same(loaded, case, net)
    again = timm.create_model(case.name, num_classes=case.num_classes, **kwargs)
    again.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    assert_same(again, case, net)


@pytest.mark.parametrize("case", [*CASES, BLURPOOL], ids=lambda case: case.name)
def test_safetensors_come_back_with_classes_and_transform(case: Case, tmp_path: Path) -> None:
    net, path = network(case), tmp_path / "net.safetensors"
    net.export(path, "safetensors")
    back = fixres.load(path, device="cpu")
    assert_same(back.model, case, net)
    assert back.info == replace(net.info, data=None) and back.classes == net.classes
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(net.model.state_dict())
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["fixres"])["info"]["classes"] == list(net.classes)


@all_cases
def test_timms_folder_gives_the_logits_and_the_transform(case: Case, tmp_path: Path, coded_folder: Path) -> None:
    net, folder = network(case), tmp_path / "net"
    net.export(folder, "timm")
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    assert_same(loaded, case, net)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((folder / "config.json").read_text())["label_names"] == list(net.classes)
    for place in (folder, folder / "model.safetensors"):
        again = fixres.load(place, device="cpu")
        assert_same(again.model, case, net)
        assert (again.classes, again.info.crop_pct, again.info.test_res) == (net.classes, 0.9, case.test_res)
        assert (again.info.mean, again.info.std) == (net.info.mean, net.info.std)
    config = timm.data.resolve_model_data_config(loaded)
    wanted = {"input_size": (3, case.test_res, case.test_res), "crop_pct": 0.9, "interpolation": "bicubic"}
    assert config == wanted | {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25], "crop_mode": "center"}
    assert config == timm.data.resolve_model_data_config(loaded, use_test_size=True)
    transform = timm.data.create_transform(**config)
    for file in sorted(coded_folder.rglob("*.jpg"))[:6]:
        ours, theirs = net.transform(file), transform(Image.open(file).convert("RGB"))
        assert ours.shape == theirs.shape == (3, case.test_res, case.test_res)
        # timm rounds the long side of the resized image and the corner of the crop to whole pixels.
        assert float((ours - theirs).abs().mul(torch.tensor(net.info.std).view(3, 1, 1)).mean()) < 2 / 255


@needs_onnx
@pytest.mark.parametrize("case", [RESNET, VIT, SWIN, MOBILENET, BLURPOOL], ids=lambda case: case.name)
def test_onnx_gives_the_logits_for_any_number_of_images(case: Case, tmp_path: Path) -> None:
    import onnxruntime

    net, path = network(case), tmp_path / "net.onnx"
    net.export(path, "onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for num in (1, 2, 5):
        (logits,) = session.run(["logits"], {"images": images(case, num).numpy()})
        with torch.inference_mode():
            expected = net.model(images(case, num)).numpy()
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    properties = {name: json.loads(text) for name, text in session.get_modelmeta().custom_metadata_map.items()}
    assert (properties["classes"], properties["test_res"]) == (list(net.classes), case.test_res)
    assert properties["data"] is None  # a place on this machine
    assert (properties["crop_pct"], properties["mean"], properties["std"]) == (0.9, [0.5, 0.4, 0.3], [0.2, 0.3, 0.25])
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]


@needs_onnx
def test_an_onnx_file_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.models.export._TOLERANCE", 0.0)
    with pytest.raises(InputError, match=r"ResNet: logits in ONNX differ from torch's by .* of the largest"):
        network(RESNET).export(tmp_path / "net.onnx", "onnx")
    assert not list(tmp_path.iterdir())


class _Unstable(nn.Module):
    """Its way depends on a value, which ONNX's exporter refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        means = images.mean((2, 3))
        return self.layer(means) if float(means.sum()) > 0 else self.layer(-means)


@needs_onnx
def test_a_network_that_onnx_cannot_hold_is_one_line(tmp_path: Path) -> None:
    info = CheckpointInfo("none", {}, ("a", "b"), 32, 32, 0.875)
    with pytest.raises(InputError, match=r"_Unstable cannot be written as ONNX") as caught:
        export(_Unstable(), info, tmp_path / "net.onnx", "onnx")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_onnx_without_its_packages_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(InputError, match=r"needs onnxruntime; install them: pip install 'roc-fixres\[onnx\]'"):
        network(RESNET).export(tmp_path / "net.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_timm_cannot_store_blur_pooling(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"timm cannot store resnet18 \(Model argument 'aa_.*safetensors or onnx"):
        network(BLURPOOL).export(tmp_path / "net", "timm")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": "resnet18/../x"}, "its network is refused"),
        ({"architecture": 3}, "its description is incomplete"),
        ({"model_args": {"checkpoint_path": "/etc/passwd"}}, "the argument 'checkpoint_path' is not allowed"),
        ({"pretrained_cfg": None}, "does not describe a network"),
        ({"num_classes": "x", "label_names": None}, "does not describe a network"),
        ({"label_names": ["a"]}, "its weights do not fit"),
        (b'{"architecture": 1e400}', "does not describe a network"),
        (None, r"is a folder without config.json and model.safetensors"),
    ],
)
def test_a_folder_of_timm_may_be_anybodys(changed: dict | bytes | None, message: str, tmp_path: Path) -> None:
    network(RESNET).export(tmp_path / "net", "timm")
    file = tmp_path / "net" / "config.json"
    if isinstance(changed, dict):
        file.write_text(json.dumps(json.loads(file.read_text()) | changed))
    elif changed:
        file.write_bytes(changed)
    else:
        file.unlink()
    with pytest.raises(InputError, match=message):
        fixres.load(tmp_path / "net", device="cpu")


def test_the_network_stays_as_it_is(tmp_path: Path) -> None:
    net = network(RESNET)
    net.model.train()
    net.model.fc.requires_grad_(False)
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    net.export(tmp_path / "net.safetensors", "safetensors")
    assert net.model.training and not net.model.fc.weight.requires_grad and net.model.conv1[0].weight.requires_grad
    assert net.model.conv1[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())


def test_existing_exports_are_kept_unless_told(tmp_path: Path) -> None:
    net = network(RESNET)
    for name, format in (("net.safetensors", "safetensors"), ("net", "timm")):
        net.export(tmp_path / name, format)
        with pytest.raises(InputError, match=f"{name} exists; choose another name, or give overwrite$"):
            net.export(tmp_path / name, format)
        net.export(tmp_path / name, format, overwrite=True)
    with pytest.raises(InputError, match=r"exists; choose another name, or give --overwrite$"):
        export(net.model, net.info, tmp_path / "net", "timm")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(InputError, match="photos is a folder of other files, not an earlier export"):
        net.export(tmp_path / "photos", "timm", overwrite=True)
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize(
    ("path", "format", "message"),
    [
        ("net.pt", "safetensors", "net.pt must end in .safetensors for format safetensors"),
        ("net", "onnx", "net must end in .onnx for format onnx"),
        ("net.zip", "zip", "format='zip' must be 'safetensors', 'onnx' or 'timm'"),
        (3, "onnx", r"path=3 must be text or os.PathLike"),
    ],
)
def test_mistakes_are_one_line(path: object, format: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        network(RESNET).export(tmp_path / path if isinstance(path, str) else path, format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"format": "fixres-checkpoint", "version": 1, "info": 3}'])
def test_damaged_descriptions_are_one_line(text: str, tmp_path: Path, tiny_net: nn.Module) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in tiny_net.state_dict().items()},
              tmp_path / "net.safetensors", {"fixres": text})  # fmt: skip
    with pytest.raises(InputError, match=r"net.safetensors: .*(damaged|incomplete)"):
        fixres.load(tmp_path / "net.safetensors")
