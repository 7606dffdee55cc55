"""Recipes and checkpoints shape a network within bounds; they reach neither the net nor the disk, nor all memory."""

from __future__ import annotations

import http.server
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from fixres.config.network_arguments import ALLOWED
from fixres.config.parsing import parse_recipe
from fixres.config.recipe import ModelConfig
from fixres.models.checkpoint import CheckpointInfo, load_checkpoint
from fixres.models.factory import create_model
from fixres.models.pretrained import cached_weights, open_network
from fixres.pipelines.spec import InputError
from tests.fixres.conftest import TINY

ROOT = Path(__file__).resolve().parents[3]


def checkpoint(path: Path, model: str = TINY.name, kwargs: Any = None) -> Path:
    """A checkpoint of ours with a single weight, whose description anybody may have written."""
    info = asdict(CheckpointInfo(model, kwargs, ("a", "b"), 64, 96, 0.9))
    torch.save({"format": "fixres-checkpoint", "version": 1, "info": info, "state_dict": {"a": torch.zeros(1)}}, path)
    return path


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Paths that a local server was asked for; its address is the first line of `tmp_path/address`."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
        (tmp_path / "address").write_text(f"http://127.0.0.1:{server.server_port}/evil.pth")
        yield asked
        server.shutdown()


HARMFUL = (
    {"pretrained": True, "pretrained_cfg_overlay": {"url": "ADDRESS", "hf_hub_id": None}},
    {"pretrained": True, "pretrained_cfg": {"url": "ADDRESS", "architecture": "resnet10t"}},
    {"pretrained": True, "pretrained_cfg_overlay": {"file": "/etc/passwd"}},
    {"checkpoint_path": "/etc/passwd"},
    {"cache_dir": "CACHE"},
    {"features_only": True},
    {"num_classes": 3},
    {"pruned": True},
    {"scriptable": True},
    {"device": "cuda"},
)


@pytest.mark.parametrize("kwargs", HARMFUL, ids=lambda kwargs: "-".join(kwargs))
def test_arguments_that_reach_net_or_disk_are_refused(
    kwargs: dict[str, Any], tmp_path: Path, requests: list[str]
) -> None:
    address, cache = (tmp_path / "address").read_text(), tmp_path / "cache"
    kwargs = yaml.safe_load(yaml.safe_dump(kwargs).replace("ADDRESS", address).replace("CACHE", str(cache)))
    name = next(iter(kwargs))
    message = rf"kwargs: the argument '{name}' is not allowed; .* docs/model\.md lists them"
    with pytest.raises(InputError, match=rf"net\.pt: .*{message}"):
        load_checkpoint(checkpoint(tmp_path / "net.pt", kwargs=kwargs))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"model": {"name": TINY.name, "kwargs": kwargs}}))
    with pytest.raises(InputError, match=rf"^model\.{message}"):
        parse_recipe(["--config", str(recipe)])
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "bare.pth")
    with pytest.raises(InputError, match=message):
        open_network(str(tmp_path / "bare.pth"), arch=TINY.name, model_kwargs=kwargs)
    assert requests == [] and not cache.exists()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("layers", [200_000, 1, 1, 1], r"layers=\[200000, 1, 1, 1\] must be whole numbers from 0 to 4096"),
        ("layers", [4000, 1, 1, 1], "more than 10000 modules"),
        ("layers", [1] * 65, "at most 64 in a list"),
        ("layers", [[[1]]], "must be whole numbers"),
        ("layers", [True], "must be whole numbers"),
        ("layers", 1.5, "must be whole numbers"),
        ("channels", [-1, 8, 8, 8], "must be whole numbers"),
        ("channels", [4096] * 4, r"weights and buffers, of at most [\d,]+; choose a smaller network"),
        ("drop_rate", float("nan"), "must be a number from 0 to 1"),
        ("drop_rate", [0.1], "must be a number from 0 to 1"),
        ("act_layer", "../../x", "must be a word"),
        ("act_layer", {"x": 1}, "must be a word"),
        ("zero_init_last", 1, "must be true or false"),
        ("in_chans", 1, "in_chans=1 must be 3, because all images are RGB here"),
        ("in_chans", torch.tensor([3, 3]), "must be 3"),
    ],
)  # fmt: skip
def test_arguments_have_bounds(name: str, value: Any, message: str, tmp_path: Path) -> None:
    start = time.perf_counter()
    with pytest.raises(InputError, match=message):
        load_checkpoint(checkpoint(tmp_path / "net.pt", "resnet50", {name: value}))
    with pytest.raises(InputError, match=message):
        create_model(ModelConfig("resnet50", {name: value}), 2)
    assert time.perf_counter() - start < 10


def test_a_small_file_does_not_make_a_large_network(tmp_path: Path) -> None:
    """The first would take 28 GB; it is counted without memory."""
    for model, kwargs in (("vit_7b_patch16_dinov3", {}), ("vit_tiny_patch16_224", {"embed_dim": 4096, "num_heads": 4})):
        file = checkpoint(tmp_path / "net.pt", model, kwargs)
        with pytest.raises(InputError, match=rf"net\.pt: .*{model}.* weights and buffers, of at most 67,108,866;"):
            load_checkpoint(file)
        with pytest.raises(InputError, match="of at most"):
            create_model(ModelConfig(model, kwargs), 2)


def test_a_wrong_tag_of_a_name_is_one_line() -> None:
    with pytest.raises(InputError, match="nonsense"):
        create_model(ModelConfig("resnet18.nonsense"), 2)


def test_counting_does_not_change_the_weights() -> None:
    torch.manual_seed(3)
    ours = create_model(TINY, 2).state_dict()
    torch.manual_seed(3)
    timms = timm.create_model(TINY.name, num_classes=2, **TINY.kwargs).state_dict()
    assert all(torch.equal(value, timms[name]) for name, value in ours.items())


def test_the_document_lists_all_arguments() -> None:
    (section,) = re.findall(r"## Arguments of the network\n(.*)", (ROOT / "docs/model.md").read_text(), re.DOTALL)
    rows = [row for row in section.splitlines() if row.startswith("| ") and "`" in row]
    assert {name for row in rows for name in re.findall("`(.*?)`", row)} == set(ALLOWED)


def test_weights_in_a_cache_must_have_the_checksum_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    url = timm.get_pretrained_cfg("resnet50.tv_in1k").url
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save({"fc.weight": torch.zeros(1)}, file)
    with pytest.raises(InputError, match=r"another checksum than its name; remove it"):
        cached_weights("resnet50.tv_in1k")
    config = timm.get_pretrained_cfg("convnext_tiny.fb_in1k")
    unnamed = file.with_name(config.url.rpartition("/")[2])
    file.rename(unnamed)
    with pytest.raises(InputError, match=r"nothing shows that this file in the cache is what its name says"):
        cached_weights("convnext_tiny.fb_in1k")
    blob, link = tmp_path / "blobs" / ("0" * 64), tmp_path / "model.safetensors"
    blob.parent.mkdir()
    unnamed.rename(blob)
    link.symlink_to(blob)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(link))
    with pytest.raises(InputError, match=r"another checksum than its name; remove it"):
        cached_weights("resnet50.tv_in1k")
