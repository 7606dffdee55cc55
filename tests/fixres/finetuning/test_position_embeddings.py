"""Networks with a fixed number of positions (ViT, Swin) are tested, fine-tuned, saved and exported at other sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

import fixres
from fixres.config.jobs import FinetuneJob
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.finetuning.job import finetune_network
from fixres.models.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from fixres.models.pretrained import open_chosen
from fixres.models.probe import input_size, set_input_size, size_arguments, sized
from fixres.pipelines.spec import InputError, Loader
from tests.fixres.conftest import TINY

VIT = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 3}
SWIN = {"img_size": 64, "embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4}
CASES = [("vit_tiny_patch16_224", VIT, 32, 48), ("swin_tiny_patch4_window7_224", SWIN, 64, 96)]
networks = pytest.mark.parametrize(("name", "kwargs", "size", "other"), CASES, ids=["vit", "swin"])


def create(name: str = CASES[0][0], kwargs: dict = VIT, **more: object) -> nn.Module:
    torch.manual_seed(4)
    return timm.create_model(name, num_classes=2, **kwargs, **more).eval()


def images(side: int) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(side))


def resized_by_pillow(embedding: torch.Tensor, old: int, new: int) -> torch.Tensor:
    """Positions (old * old, C) on a larger grid, by Pillow's bicubic filter."""
    grid = embedding.detach().numpy().reshape(old, old, -1)
    channels = [
        Image.fromarray(channel).resize((new, new), Image.Resampling.BICUBIC) for channel in grid.transpose(2, 0, 1)
    ]
    return torch.from_numpy(np.stack([np.asarray(one) for one in channels], -1)).reshape(new * new, -1)


def test_position_embeddings_are_resized_as_pillow_does() -> None:
    net = create()
    before = net.pos_embed.detach().clone()
    assert set_input_size(net, 64) and net.pos_embed.shape == (1, 17, 24)
    torch.testing.assert_close(net.pos_embed[0, :1], before[0, :1])  # of the class token
    torch.testing.assert_close(net.pos_embed[0, 1:], resized_by_pillow(before[0, 1:], 2, 4), rtol=0, atol=1e-5)


@networks
def test_at_its_own_size_nothing_changes(name: str, kwargs: dict, size: int, other: int) -> None:
    net, dynamic = create(name, kwargs), create(name, kwargs, dynamic_img_size=True)
    expected = net(images(size))
    assert not set_input_size(net, size) and not set_input_size(net, size, always=True) and sized(net, size) is net
    assert torch.equal(net(images(size)), expected)
    torch.testing.assert_close(dynamic(images(size)), expected)
    # A copy for another size leaves the network as it is.
    copied = sized(net, other)
    assert copied is not net and copied(images(other)).shape == (3, 2) and input_size(copied) == other
    assert torch.equal(net(images(size)), expected) and input_size(net) == size
    assert sized(dynamic, other) is dynamic


def test_a_resized_vit_is_the_one_that_resizes_in_each_forward() -> None:
    net, dynamic = create(), create(dynamic_img_size=True)
    assert set_input_size(net, 48)
    torch.testing.assert_close(net(images(48)), dynamic(images(48)))
    assert set_input_size(dynamic, 48, always=True) and not set_input_size(dynamic, 48, always=True)
    torch.testing.assert_close(net(images(48)), dynamic(images(48)))


def test_windows_of_swin_grow_with_the_image() -> None:
    net = create(*CASES[1][:2])
    assert size_arguments(net) == {"img_size": 64, "window_size": 4} | {"window_size": 4}
    set_input_size(net, 96)
    assert size_arguments(net) == {"img_size": 96, "window_size": 6}
    again = create(CASES[1][0], SWIN | size_arguments(net))
    again.load_state_dict(net.state_dict())
    torch.testing.assert_close(again(images(96)), net(images(96)))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match=r"does not take 48 px .* model.kwargs.dynamic_img_size to true"):
        fixres.models.probe.check_takes(create(), 48)
    with pytest.raises(
        InputError, match=r"VisionTransformer has patches of 16 px, so 40 px do not fit; use 32 or 48 px"
    ):
        set_input_size(create(), 40)


@networks
def test_evaluation_at_several_sizes(coded_folder: Path, name: str, kwargs: dict, size: int, other: int) -> None:
    """Each is that of a network set to the size; the given one keeps its weights, and the very same parameters."""
    net = create(name, kwargs)
    before, settings = dict(net.named_parameters()), {"num_workers": 0, "precision": "fp32"}
    results = fixres.evaluate(net, coded_folder, [other, size], **settings)
    assert all(parameter is before[key] for key, parameter in net.named_parameters())
    (own,) = fixres.evaluate(net, coded_folder, size, **settings)
    set_input_size(net, other)
    (resized,) = fixres.evaluate(net, coded_folder, other, **settings)
    assert [one.loss for one in results] == [resized.loss, own.loss] and resized.loss != own.loss


def finetuned(net: object, folder: Path, side: int, **settings: object) -> fixres.FinetuneOutcome:
    settings = {"epochs": 1, "lr": 0.1, "num_workers": 0, "precision": "fp32", "batch_size": 8} | settings
    return fixres.finetune(net, folder, test_resolution=side, val=folder, **settings)


@networks
def test_fine_tuning_in_place(coded_folder: Path, name: str, kwargs: dict, size: int, other: int) -> None:
    """The head alone leaves the resized embeddings; last blocks train their own biases, all trains everything."""
    resized = sized(create(name, kwargs), other).state_dict()
    blocks = "blocks.1." if name.startswith("vit") else "layers.1.blocks.1."
    for layers, trained in (
        ("classifier_bn", ("norm.", "head.")),
        ("last_blocks", (blocks, "norm.", "head.")),
        ("all", ("",)),
    ):
        net = create(name, kwargs)
        result = finetuned(net, coded_folder, other, layers=layers)
        assert result.before is not None and result.after is not None and result.before.loss != result.after.loss
        values = net.state_dict()
        changed = {key for key in values if not torch.equal(values[key], resized[key])}
        assert changed <= {key for key in values if key.startswith(trained)}
        assert {key.rsplit(".", 1)[0] for key in changed} >= {"head.fc" if name.startswith("swin") else "head"}
        assert ("pos_embed" in changed or any("relative" in key for key in changed)) == (
            layers == "all" or (layers == "last_blocks" and name.startswith("swin"))
        )


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    info = CheckpointInfo(CASES[0][0], VIT, ("class_00", "class_01"), 32, 32, 0.9)
    save_checkpoint(tmp_path / "trained.pt", create(), info)
    return tmp_path / "trained.pt"


def test_a_loaded_network_keeps_its_new_size(coded_folder: Path, checkpoint: Path, tmp_path: Path) -> None:
    """After fine-tuning the whole network: in a checkpoint, in safetensors, in timm's folder and in ONNX."""
    net = fixres.load(checkpoint, device="cpu")
    finetuned(net, coded_folder, 48, layers="all")
    assert net.info.model_kwargs["img_size"] == 48 and net.info.test_res == 48
    logits = net.model(images(48))
    save_checkpoint(tmp_path / "net.pt", net.model, net.info)
    net.export(tmp_path / "net.safetensors", "safetensors")
    net.export(tmp_path / "folder", "timm")
    loaded = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    assert loaded.pos_embed.shape == (1, 10, 24)
    torch.testing.assert_close(loaded(images(48)), logits)
    for file in ("net.pt", "net.safetensors", "folder"):
        again = fixres.load(tmp_path / file, device="cpu")
        assert again.model.pos_embed.shape == (1, 10, 24)
        torch.testing.assert_close(again.model(images(48)), logits)
        torch.testing.assert_close(again.model(images(64)), net.model(images(64)))  # resampled from the same grid


def test_onnx_is_written_for_the_test_resolution(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its graph gets embeddings of that size, so it resamples none; the network stays as it is."""
    net, written = fixres.load(checkpoint, device="cpu"), []
    net.set_info(replace(net.info, test_res=48))
    monkeypatch.setattr("fixres.models.export._write_onnx", lambda *given: written.append(given) or given[2].touch())
    net.export(tmp_path / "net.onnx", "onnx")
    ((plain, info, _),) = written
    assert plain.pos_embed.shape == (1, 10, 24) and net.model.pos_embed.shape == (1, 5, 24)
    assert info.model_kwargs["img_size"] == 48
    torch.testing.assert_close(plain(images(48)), net.model(images(48)))


def test_several_sizes_from_the_same_weights(
    checkpoint: Path, open_coded: Callable[..., Loader], coded_folder: Path, tmp_path: Path
) -> None:
    """Each is fine-tuned from the checkpoint, not from the one before; the files open at their own size."""
    config = FinetuneConfig(1, 0.1, layers="all")
    files = {}
    for resolutions in ([48, 64], [64]):
        output = tmp_path / f"out{len(resolutions)}"
        job = FinetuneJob(str(checkpoint), device="cpu", precision="fp32", test_res=resolutions, output=output,
                          finetune=config, optim=OptimConfig(batch_size=8))  # fmt: skip
        finetune_network(job, open_chosen(job, open_coded().classes), open_coded)
        files[len(resolutions)] = output / "trained_finetuned64.pt"
    one, other = (load_checkpoint(file)[0] for file in files.values())
    assert one.pos_embed.shape == (1, 17, 24)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    net, info = load_checkpoint(tmp_path / "out2" / "trained_finetuned48.pt")
    assert info.model_kwargs["img_size"] == 48 and net.pos_embed.shape == (1, 10, 24)


def test_networks_of_any_size_stay_unchanged(tiny_net: nn.Module) -> None:
    assert sized(tiny_net, 40) is tiny_net and not set_input_size(tiny_net, 40, always=True)
    assert size_arguments(tiny_net) == {} and TINY.kwargs
