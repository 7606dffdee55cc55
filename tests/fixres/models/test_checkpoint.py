"""Checkpoints hold their test transform, are written atomically; other files are refused."""

from __future__ import annotations

import pickle
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from fixres.models.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fixres.models.weights import read_weights
from fixres.pipelines.spec import IMAGENET_MEAN, EvalCrop, InputError
from tests.fixres.conftest import TINY

INFO = CheckpointInfo(TINY.name, TINY.kwargs, ("cat", "dog"), train_res=64, test_res=96, crop_pct=0.9, finetuned=True)
BICUBIC = replace(INFO, interpolation="bicubic")


def test_what_is_saved_comes_back(tiny_net: nn.Module, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.pt", tiny_net, BICUBIC)
    net, info = load_checkpoint(tmp_path / "net.pt")
    assert info == BICUBIC and info.eval_crop == EvalCrop(0.9, interpolation="bicubic")
    assert (info.mean, INFO.interpolation) == (IMAGENET_MEAN, "bilinear")
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(net.eval()(image), tiny_net.eval()(image))
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


@pytest.mark.parametrize("key", ["fixed", "finetuned"])
def test_older_names_of_keys_load(key: str, tiny_net: nn.Module, tmp_path: Path) -> None:
    """A file's content, literally: what was "fixed" is "finetuned" now."""
    info = {
        "model": "resnet10t",
        "model_kwargs": {"channels": [8, 16, 16, 24], "stem_width": 8},
        "classes": ("cat", "dog"),
        "train_res": 64,
        "test_res": 96,
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        key: True,
        "seed": 0,
    }
    content = {"format": "fixres-checkpoint", "version": 1, "info": info, "state_dict": tiny_net.state_dict()}
    torch.save(content, tmp_path / "net.pt")
    assert load_checkpoint(tmp_path / "net.pt")[1] == INFO
    save_checkpoint(tmp_path / "new.pt", tiny_net, INFO)
    written = torch.load(tmp_path / "new.pt")
    assert written["info"]["finetuned"] is True and "fixed" not in written["info"]


def test_timm_loads_it_by_name(tiny_net: nn.Module, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.pt", tiny_net, INFO)
    net = timm.create_model(TINY.name, num_classes=2, checkpoint_path=str(tmp_path / "net.pt"), **TINY.kwargs)
    assert all(
        torch.equal(a, b) for a, b in zip(net.state_dict().values(), tiny_net.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("limit", [0, 1000, 20_000])
def test_a_full_disk_leaves_the_old_file(limit: int, tiny_net: nn.Module, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "net.pt", tiny_net, INFO)
    before = (tmp_path / "net.pt").read_bytes()
    assert len(before) > 20_000
    old_limit, old_handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old_limit[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(tmp_path / "net.pt", tiny_net, INFO)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert (tmp_path / "net.pt").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt"]


def test_a_file_without_checksums_is_read(tmp_path: Path, tiny_net: nn.Module) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        save_checkpoint(tmp_path / "net.pt", tiny_net, INFO)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_weights(tmp_path / "net.pt").state_dict.keys() == tiny_net.state_dict().keys()


class _Hostile:
    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('ran')",)


def _break(kind: str, path: Path, net: nn.Module) -> None:
    save_checkpoint(path, net, INFO)
    content = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "a changed bit":
        at = content.index(net.fc.weight.detach().numpy().tobytes()) + 5
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "picture":
        path.write_bytes(b"\xff\xd8\xff\xe0" * 100)
    elif kind == "hostile":
        path.write_bytes(pickle.dumps(_Hostile()))
    elif kind == "another program's":
        torch.save({"model": {"fc.weight": torch.zeros(2)}}, path)
    elif kind == "version":
        torch.save(torch.load(path) | {"version": 99}, path)
    elif kind == "other model":
        loaded = torch.load(path)
        loaded["info"]["model"], loaded["info"]["model_kwargs"] = "resnet18", {}
        torch.save(loaded, path)
    elif kind == "unknown model":
        loaded = torch.load(path)
        loaded["info"]["model"] = "resnet_of_tomorrow"
        torch.save(loaded, path)
    elif kind == "unknown filter":
        save_checkpoint(path, net, replace(INFO, interpolation="mitchell"))
    elif kind == "missing":
        path.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "not weights, damaged"),
        ("a changed bit", r"damaged \(.*CRC-32"),
        ("empty", "not weights, damaged"),
        ("picture", "not weights, damaged"),
        ("hostile", "unsafe content"),
        ("another program's", "not a checkpoint of this project"),
        ("version", "version 99"),
        ("other model", "do not fit the model resnet18"),
        ("unknown model", "not a timm model"),
        ("unknown filter", "interpolation='mitchell' must be 'bilinear' or 'bicubic'"),
        ("missing", "no such file"),
    ],
)
def test_bad_files_are_refused_in_one_line(kind: str, message: str, tiny_net: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    _break(kind, path, tiny_net)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
