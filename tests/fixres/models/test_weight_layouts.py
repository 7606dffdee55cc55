"""Weights as other programs save them open, and say what was left out; what cannot work is refused truly."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.export import export
from fixres.models.pretrained import open_network
from fixres.pipelines.spec import InputError
from tests.fixres.conftest import TINY
from tests.fixres.models.test_pretrained import CLASSES, open_tiny, same, tiny


def prefixed(prefix: str, net: nn.Module) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in net.state_dict().items()}


def averaged(net: nn.Module) -> AveragedModel:
    average = AveragedModel(net)
    average.update_parameters(net)
    return average


def compiled(net: nn.Module) -> dict[str, Tensor]:
    """As torch.compile of one stage saves it."""
    return {name.replace("layer2.", "layer2._orig_mod."): value for name, value in net.state_dict().items()}


def composer(net: nn.Module) -> dict[str, Any]:
    """Composer's checkpoint: states of random generators as NumPy arrays, times, metrics."""
    rng = [{"numpy": np.random.default_rng(0).bit_generator.random_raw(3), "torch": torch.get_rng_state()}]
    times = {"total_wct": datetime.timedelta(seconds=3), "best": np.float64(0.5)}
    return {"state": {"model": prefixed("module.", net), "timestamp": times, "run_name": "x"}, "rng": rng}


LIGHTNING = {"epoch": 1, "pytorch-lightning_version": "2.5", "hyper_parameters": {"lr": 0.1}, "loops": {"a": [{}]}}
ONLY = r"only what is under "
LAYOUTS = {
    "averaged": (lambda net: averaged(net).state_dict(), "without module., n_averaged in its names"),
    "torchvision": (lambda net: {"model": tiny(9).state_dict(), "model_ema": averaged(net).state_dict()}, "n_averaged"),
    "lightning": (
        lambda net: LIGHTNING | {"state_dict": prefixed("model.", net) | {"criterion.weight": torch.ones(7)}},
        r"only what is under 'model\.', leaving out 1 \(criterion\.weight\)",
    ),
    "lightning, compiled": (
        lambda net: LIGHTNING | {"state_dict": prefixed("model._orig_mod.", net)},
        r"without _orig_mod\. in its names, only what is under 'model\.'",
    ),
    "nested": (lambda net: {"model_state_dict": prefixed("net.backbone.", net)}, ONLY + r"'net\.backbone\.'"),
    "composer": (composer, r"without module\. in its names"),
    "a compiled stage": (compiled, r"without _orig_mod\. in its names"),
    "fsdp": (lambda net: prefixed("_fsdp_wrapped_module.", net), r"without _fsdp_wrapped_module\."),
    "deepspeed": (lambda net: {"module": net.state_dict(), "ds_version": "0.1"}, ""),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_other_programs(layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    oracle, (make, said) = tiny(), LAYOUTS[layout]
    torch.save(make(oracle), tmp_path / "net.ckpt")
    assert same(open_tiny(tmp_path / "net.ckpt").net, oracle)
    lines = [record.getMessage() for record in caplog.records if "reads its weights" in record.getMessage()]
    assert len(lines) == bool(said)
    if said:
        assert re.search(f"net.ckpt: reads its weights .*{said}", lines[0])


def test_a_common_prefix_before_names_that_timm_translates(tmp_path: Path) -> None:
    oracle = torchvision.models.densenet121(num_classes=7)
    save_file(prefixed("model.", oracle), tmp_path / "net.safetensors")
    net = open_network(str(tmp_path / "net.safetensors"), CLASSES, arch="densenet121.tv_in1k").net
    assert same(net, oracle)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda net: prefixed("student.", net) | prefixed("teacher.", net),
            r"holds several networks, student and teacher; save the state_dict\(\) of one of them",
        ),
        (
            lambda net: net.state_dict() | {"criterion.weight": torch.ones(7)},
            r"1 unexpected \(criterion\.weight\); save the state_dict\(\) of the network alone",
        ),
        (
            lambda net: net.state_dict() | {"layer4.1.conv1.weight": torch.ones(7)},
            r"1 unexpected \(layer4\.1\.conv1\.weight\); name the right network with --arch",
        ),
        (
            lambda _: timm.create_model(TINY.name, num_classes=7, in_chans=1, **TINY.kwargs).state_dict(),
            r"of another shape \(conv1\.0\.weight .*; it takes images of 1 channels, but all images are RGB here",
        ),
        (lambda net: {1: net.state_dict()["fc.bias"]}, r"a weight without a name \(int\)"),
        (
            lambda net: net.state_dict() | {"fc.weight": torch.zeros(1).expand(10**6, 5000)},
            r"would take 20,000,\d+,\d+ bytes, the file has 1\d\d,\d+; not a file to trust",
        ),
        (lambda net: net.state_dict() | {"fc.weight": torch.zeros(7, 24, device="meta")}, "without values"),
        (lambda net: net.state_dict() | {"fc.weight": torch.zeros(7, 24, dtype=torch.complex64)}, "is torch.complex64"),
        (lambda net: net.state_dict() | {"fc.weight": torch.zeros(7, 24).to(torch.float8_e4m3fn)}, "is torch.float8"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_what_helps(make: Any, message: str, tmp_path: Path) -> None:
    torch.save(make(tiny()), tmp_path / "net.pth")
    with pytest.raises(InputError, match=message):
        open_tiny(tmp_path / "net.pth")


DAMAGE = {
    "nan": ("layer1.0.conv1.weight", torch.nan, r"layer1\.0\.conv1\.weight is not finite; the training"),
    "infinite statistics": ("conv1.1.running_mean", torch.inf, r"conv1\.1\.running_mean is not finite"),
    "negative variance": ("conv1.1.running_var", -1.0, r"conv1\.1\.running_var is negative"),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("file", ["own.pt", "own.safetensors", "foreign.pth"])
def test_values_that_cannot_work_are_refused_in_any_file(kind: str, file: str, tmp_path: Path) -> None:
    (name, value, message), net, path = DAMAGE[kind], tiny(), tmp_path / file
    net.state_dict()[name].view(-1)[0] = value
    info = CheckpointInfo(TINY.name, TINY.kwargs, CLASSES, 32, 48, 0.9)
    if file == "own.safetensors":
        export(net, info, path, "safetensors")
    elif file == "own.pt":
        save_checkpoint(path, net, info)
    else:
        torch.save(net.state_dict(), path)
    with pytest.raises(InputError, match=message):
        open_network(str(path)) if "own" in file else open_tiny(path)


def test_quantized_weights_are_not_read_as_numbers(tmp_path: Path) -> None:
    state = tiny().state_dict()
    torch.save(state | {"fc.weight": (state["fc.weight"] * 100).to(torch.int8)}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"fc\.weight has whole numbers \(torch\.int8\)"):
        open_tiny(tmp_path / "net.pth")
    torch.save(state | {"fc.weight": state["fc.weight"].double() * 1e300}, tmp_path / "net.pth")
    with pytest.raises(InputError, match=r"fc\.weight is not finite"):
        open_tiny(tmp_path / "net.pth")
