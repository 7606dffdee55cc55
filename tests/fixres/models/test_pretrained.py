"""Pretrained weights: torchvision's network as oracle, every layout of file, bad files refused in one line."""

from __future__ import annotations

import argparse
import logging
import pickle
import warnings
import zipfile
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from fixres.evaluation.accuracy import evaluate
from fixres.models.checkpoint import CheckpointInfo, save_checkpoint
from fixres.models.predictor import Predictor
from fixres.models.pretrained import OpenedNetwork, cached_weights, open_network
from fixres.models.timm_folder import recorded_transform
from fixres.models.weights import read_weights
from fixres.pipelines.spec import InputError
from tests.fixres.conftest import CPU, TINY

CLASSES = tuple(f"class {number}" for number in range(7))
IMAGE = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def tiny(num_classes: int = 7, seed: int = 0) -> nn.Module:
    """A small network with BatchNorm statistics other than those of a new network, so that their loss is detected."""
    torch.manual_seed(seed)
    net = timm.create_model(TINY.name, num_classes=num_classes, **TINY.kwargs)
    net.train()(torch.randn(4, 3, 32, 32))
    return net.eval()


def same(net: nn.Module, other: nn.Module) -> bool:
    with torch.inference_mode():
        return torch.allclose(net.eval()(IMAGE), other.eval()(IMAGE), atol=1e-5)


def open_tiny(path: Path, **arguments: object) -> OpenedNetwork:
    return open_network(str(path), CLASSES, **({"arch": TINY.name, "model_kwargs": TINY.kwargs} | arguments))


@pytest.mark.parametrize("module", ["", "module."])
def test_torchvisions_resnet_gives_the_same_logits(module: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    oracle = torchvision.models.resnet18(num_classes=7)
    oracle.train()(torch.randn(4, 3, 64, 64))
    torch.save({module + name: value for name, value in oracle.state_dict().items()}, tmp_path / "r18.pth")
    net, info, normalize, _ = open_network(str(tmp_path / "r18.pth"), CLASSES, arch="resnet18.tv_in1k")
    assert same(net, oracle)
    assert (info.model, info.classes, info.crop_pct, info.test_res) == ("resnet18.tv_in1k", CLASSES, 0.875, 224)
    white = normalize(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8))
    assert white[0, :, 0, 0].tolist() == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_fixres_files_have_a_model_key_and_the_prefix_module(tmp_path: Path) -> None:
    oracle = tiny()
    weights = {"module." + name: value for name, value in oracle.state_dict().items()}
    torch.save({"epoch": 3, "model": weights, "optimizer": {"state": {}}}, tmp_path / "finetune.pth")
    assert same(open_tiny(tmp_path / "finetune.pth").net, oracle)
    assert read_weights(tmp_path / "finetune.pth").key == "model"


def test_timms_training_script_names_the_network_and_averaged_weights_are_used(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain, averaged = (timm.create_model("mobilenetv3_small_050", num_classes=7) for _ in range(2))
    torch.save(
        {
            "epoch": 1,
            "arch": "mobilenetv3_small_050",
            "args": argparse.Namespace(model="mobilenetv3_small_050", lr=0.1),
            "state_dict": plain.state_dict(),
            "state_dict_ema": averaged.state_dict(),
        },
        tmp_path / "model_best.pth.tar",
    )
    net, info, *_ = open_network(str(tmp_path / "model_best.pth.tar"), CLASSES)
    assert same(net, averaged) and not same(net, plain)
    assert info.model == "mobilenetv3_small_050"


def test_safetensors_half_precision_compiled_and_without_counters(tmp_path: Path) -> None:
    oracle = tiny().half().float()
    state = {f"_orig_mod.module.{name}": value.half() if value.is_floating_point() else value
             for name, value in oracle.state_dict().items() if not name.endswith("num_batches_tracked")}  # fmt: skip
    save_file(state, tmp_path / "net.safetensors")
    assert same(open_tiny(tmp_path / "net.safetensors").net, oracle)


def test_our_checkpoints_hold_all(tmp_path: Path) -> None:
    oracle = tiny()
    info = CheckpointInfo(TINY.name, TINY.kwargs, CLASSES, 32, 48, 0.9, mean=(0.5, 0.4, 0.3), finetuned=True)
    save_checkpoint(tmp_path / "own.pt", oracle, info)
    opened = open_network(str(tmp_path / "own.pt"), CLASSES)
    assert same(opened.net, oracle) and opened.info == info
    assert open_network(str(tmp_path / "own.pt"), crop_pct=1.0).info.crop_pct == 1.0
    with pytest.raises(InputError, match=r"knows 7 classes .*, but not 1 of the data's 2, such as x; give data of"):
        open_network(str(tmp_path / "own.pt"), (CLASSES[1], "x"))
    anew = open_network(str(tmp_path / "own.pt"), ("a", "b", "c"), new_classifier=True)
    assert anew.net(IMAGE).shape == (2, 3) and anew.info.classes == ("a", "b", "c")
    assert torch.equal(anew.net.conv1[0].weight, oracle.conv1[0].weight)


def test_a_classifier_of_another_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    oracle = tiny(num_classes=9)
    torch.save(oracle.state_dict(), tmp_path / "nine.pth")
    with pytest.raises(InputError, match=r"has 9 outputs without names, the data has 7 classes \(.*--classes"):
        open_tiny(tmp_path / "nine.pth")
    opened = open_tiny(tmp_path / "nine.pth", new_classifier=True)
    assert opened.net(IMAGE).shape == (2, 7)
    assert "a new classifier for 7 classes instead of 9" in caplog.text
    with torch.inference_mode():
        torch.testing.assert_close(opened.net.forward_features(IMAGE), oracle.forward_features(IMAGE))
    without = open_network(str(tmp_path / "nine.pth"), arch=TINY.name, model_kwargs=TINY.kwargs)
    assert same(without.net, oracle) and without.info.classes == tuple("012345678")


def test_another_network_of_torchvision(tmp_path: Path) -> None:
    oracle = torchvision.models.densenet121(num_classes=7)
    torch.save(oracle.state_dict(), tmp_path / "x.pth")
    net = open_network(str(tmp_path / "x.pth"), CLASSES, arch="densenet121.tv_in1k").net
    assert same(net, oracle)


def test_the_assumed_transform_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(timm.create_model("resnet18", num_classes=7).state_dict(), tmp_path / "x.pth")
    with caplog.at_level(logging.WARNING):
        info = open_network(str(tmp_path / "x.pth"), CLASSES, arch="resnet18").info
    (line,) = [record.getMessage() for record in caplog.records if "transform of" in record.getMessage()]
    assert f"crop_pct {info.crop_pct:g}" in line and ", bicubic, mean" in line and "\n" not in line
    assert info.interpolation == "bicubic"
    lanczos = recorded_transform(timm.get_pretrained_cfg("resnet18").to_dict() | {"interpolation": "lanczos"})
    assert lanczos["interpolation"] == "bicubic"


def test_a_vision_transformer_is_resized_and_logs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, open_coded: object
) -> None:
    kwargs = {"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 2}
    oracle = timm.create_model("vit_tiny_patch16_224", num_classes=2, **kwargs).eval()
    nn.init.normal_(oracle.pos_embed)
    nn.init.normal_(oracle.head.weight)
    torch.save(oracle.state_dict(), tmp_path / "vit.pth")
    net, info, normalize, _ = open_network(
        str(tmp_path / "vit.pth"), ("a", "b"), arch="vit_tiny_patch16_224", model_kwargs=kwargs
    )
    assert "position embedding (2 x 2 patches) is resized" in caplog.text
    large = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(net(large[..., :32, :32]), oracle(large[..., :32, :32]))
        oracle.set_input_size(img_size=(64, 64))
        torch.testing.assert_close(net(large), oracle(large), rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match=r"cannot take images of 40 px .*divisible by patch size.*another test_res"):
        evaluate(Predictor(net, normalize, CPU), open_coded(resolution=40))  # type: ignore[operator]
    save_checkpoint(tmp_path / "own.pt", net, info)
    timm.create_model(info.model, num_classes=2, checkpoint_path=str(tmp_path / "own.pt"), **info.model_kwargs)


def test_a_convnext_needs_nothing_special(tmp_path: Path) -> None:
    kwargs = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
    oracle = timm.create_model("convnext_atto", num_classes=7, **kwargs)
    torch.save(oracle.state_dict(), tmp_path / "c.pth")
    net = open_network(str(tmp_path / "c.pth"), CLASSES, arch="convnext_atto", model_kwargs=kwargs).net
    assert same(net, oracle)


def test_cached_weights_are_found_and_nothing_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    oracle = timm.create_model("resnet18", num_classes=1000)
    save_file(oracle.state_dict(), tmp_path / "model.safetensors")
    found = {("timm/resnet18.tv_in1k", "model.safetensors"): str(tmp_path / "model.safetensors")}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *key: found.get(key))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    opened = open_network("resnet18.tv_in1k")
    assert same(opened.net, oracle) and len(opened.info.classes) == 1000
    with pytest.raises(InputError, match=r"resnet18\.a1_in1k are not in the local cache; download them once"):
        cached_weights("resnet18.a1_in1k")
    with pytest.raises(InputError, match=r"timm has no weights resnet10t\.nonsense"):
        open_network("resnet10t.nonsense")
    with pytest.raises(InputError, match="timm has no weights resnet5000"):
        open_network("resnet5000")


class _Hostile:
    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('ran')",)


def _pack(path: Path) -> None:
    """A file of torch.save, compressed, with a member that unpacks to a hundred times the size of the file."""
    torch.save({"w": torch.zeros(3)}, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data + bytes(30 << 20) if name.endswith("data/0") else data)


def _write(kind: str, path: Path) -> None:
    net = tiny()
    state = net.state_dict()
    match kind:
        case "hostile":
            torch.save({"state_dict": state, "extra": _Hostile()}, path)
        case "hostile pickle":
            path.write_bytes(pickle.dumps(_Hostile(), protocol=2))
        case "picture":
            path.write_bytes(b"\xff\xd8\xff\xe0" * 100)
        case "list":
            torch.save([1, 2], path)
        case "no weights":
            torch.save({"state_dict": {"epoch": 3}}, path)
        case "empty":
            torch.save({}, path)
        case "bomb":
            _pack(path)
        case "nan":
            torch.save(
                state | {"layer1.0.conv1.weight": torch.full_like(state["layer1.0.conv1.weight"], torch.nan)}, path
            )
        case "other network":
            torch.save(timm.create_model("resnet18", num_classes=7).state_dict(), path)
        case "a layer less":
            torch.save({name: value for name, value in state.items() if not name.startswith("layer4")}, path)
        case "a layer more":
            torch.save(state | {"layer5.weight": torch.zeros(2)}, path)
        case "twice":
            torch.save(state | {"module.fc.weight": torch.zeros(2)}, path)
        case "sparse":
            torch.save(state | {"fc.weight": state["fc.weight"].to_sparse()}, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("hostile", r"wants to execute .*exec.* while loading"),
        ("hostile pickle", "not weights, damaged, or with unsafe content"),
        ("picture", "not weights, damaged"),
        ("list", "holds a list, not weights by name"),
        ("no weights", "no weights in it"),
        ("empty", "no weights in it"),
        ("bomb", r"unpacks to \d+ MiB"),
        ("nan", r"layer1\.0\.conv1\.weight is not finite"),
        ("other network", r"a bare state dict that do not fit .*missing \(.*unexpected \(.*of another shape \("),
        ("a layer less", r"\d+ missing \(layer4\.0\.conv1\.weight, .*, \.\.\.\); name the right network with --arch"),
        ("a layer more", r"1 unexpected \(layer5\.weight\)"),
        ("twice", "two weights have the same name"),
        ("sparse", "sparse or quantized"),
        ("missing", "no such file"),
    ],
)
def test_bad_files_are_refused_in_one_line(kind: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    _write(kind, path)
    with warnings.catch_warnings(), pytest.raises(InputError, match=message) as caught:
        warnings.simplefilter("ignore")
        open_tiny(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_does_not_name_its_network_needs_arch(tmp_path: Path) -> None:
    torch.save(tiny().state_dict(), tmp_path / "x.pth")
    with pytest.raises(InputError, match="does not name its network; add --arch"):
        open_network(str(tmp_path / "x.pth"), CLASSES)
    (tmp_path / "y.safetensors").write_bytes(b"{}" * 50)
    with pytest.raises(InputError, match="not a safetensors file"):
        open_tiny(tmp_path / "y.safetensors")
