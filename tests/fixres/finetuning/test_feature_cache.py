"""Fine-tuning from the cache against fine-tuning from images: the same weights, without reading or frozen layers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fixres.config.recipe import FinetuneConfig
from fixres.finetuning.feature_cache import FeatureCache, NoRoomError
from fixres.finetuning.split_network import CannotSplitError, split
from fixres.finetuning.trainable_layers import freeze_except, trainable_layers
from fixres.models import predictor as predictor_module
from fixres.models.precision import Precision
from fixres.models.predictor import Predictor
from fixres.models.probe import probe_network
from fixres.pipelines.spec import InputError, Loader
from fixres.training.progress import EpochResult
from tests.fixres.conftest import CPU
from tests.fixres.families import FAMILIES, PNASNET, RESNET, Family, create
from tests.fixres.finetuning.on_coded import finetune_on_coded

OpenCoded = Callable[..., Loader]


def _finetuned(family: Family, open_coded: OpenCoded, **fields: Any) -> tuple[nn.Module, list[EpochResult], Loader]:
    """Three epochs on 24 images in batches of 7: each epoch omits other images."""
    net = create(family)
    config = FinetuneConfig(**{"epochs": 3, "lr": 0.2, "augmentation": "test", "cache_dtype": "fp32"} | fields)
    return net, *finetune_on_coded(net, open_coded, config, family.side, batch_size=7, seed=4)


def _distance(one: nn.Module, other: nn.Module) -> float:
    """Largest difference of any weight or statistic, relative to the largest value of its tensor."""
    others = other.state_dict()
    pairs = [(a, others[name]) for name, a in one.state_dict().items() if a.is_floating_point()]
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1e-3)) for a, b in pairs)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_cached_equals_uncached(family: Family, open_coded: OpenCoded) -> None:
    slow, expected, loader = _finetuned(family, open_coded, cache="no")
    assert loader.counters.num_images == 3 * 21
    fast, results, loader = _finetuned(family, open_coded)
    assert loader.counters.num_images == 0
    assert _distance(slow, create(family)) > 1e-3  # the training changed weights
    assert _distance(fast, slow) < 1e-5
    assert [one.loss for one in results] == pytest.approx([one.loss for one in expected], rel=1e-5)
    assert [(one.num_images, one.resolution) for one in results] == [(21, family.side)] * 3


@pytest.mark.parametrize("layers", ["classifier", "paper", "last_blocks"])
def test_cached_equals_uncached_with_other_layers(layers: str, open_coded: OpenCoded) -> None:
    for family in (RESNET, FAMILIES[3], FAMILIES[5]):
        slow, *_ = _finetuned(family, open_coded, cache="no", layers=layers, lr=0.02)
        fast, _, loader = _finetuned(family, open_coded, layers=layers, lr=0.02)
        assert loader.counters.num_images == 0 and _distance(fast, slow) < 2e-5, family.name


def test_half_precision_is_close(open_coded: OpenCoded) -> None:
    slow, *_ = _finetuned(RESNET, open_coded, cache="no")
    fast, *_ = _finetuned(RESNET, open_coded, cache_dtype="fp16")
    assert 0 < _distance(fast, slow) < 5e-3


def test_a_temporary_file_gives_the_same_and_is_deleted(
    open_coded: OpenCoded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inside, *_ = _finetuned(RESNET, open_coded)
    assert "in memory" in capsys.readouterr().err
    outside, *_ = _finetuned(RESNET, open_coded, cache_memory=0.0, cache_dir=tmp_path)
    line = capsys.readouterr().err
    assert f"24 rows of 48 values, 0.0 MiB in a temporary file in {tmp_path}" in line
    assert _distance(outside, inside) == 0 and not list(tmp_path.iterdir())


def test_frozen_layers_run_once(open_coded: OpenCoded, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    forward = nn.MaxPool2d.forward  # in the stem of the network, and nowhere else
    monkeypatch.setattr(nn.MaxPool2d, "forward", lambda self, x: calls.append(len(x)) or forward(self, x))
    _finetuned(RESNET, open_coded, epochs=6)
    with_six = sum(calls)
    calls.clear()
    _finetuned(RESNET, open_coded, epochs=1)
    assert with_six == sum(calls) < 60  # 24 images, and a few to probe the network and check the split


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sets pieces of three images of 32 px; the images of each piece that fine-tuning processes."""
    found: list[int] = []
    output = Predictor._output
    monkeypatch.setattr(predictor_module, "PIXELS_OF_THREAD", 3 * 32**2 / torch.get_num_threads())
    monkeypatch.setattr(Predictor, "_output", lambda self, x: found.append(len(x)) or output(self, x))
    return found


@pytest.mark.parametrize("family", [RESNET, FAMILIES[2], FAMILIES[3], FAMILIES[5]], ids=lambda family: family.name)
def test_without_cache_frozen_layers_take_pieces_of_a_batch(
    family: Family, open_coded: OpenCoded, pieces: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    split_up, results, loader = _finetuned(family, open_coded, cache="no")
    assert pieces == [3, 3, 1] * 9 and loader.counters.num_images == 63
    monkeypatch.setattr(predictor_module, "PIXELS_OF_THREAD", 1 << 19)
    whole, expected, _ = _finetuned(family, open_coded, cache="no")
    # Rounding: in float64 networks the distances are below 2e-14, in float32 that of efficientnet_b0 is 1.0e-5.
    assert len(pieces) == 27 and _distance(split_up, whole) < 3e-5
    assert [one.loss for one in results] == pytest.approx([one.loss for one in expected], rel=1e-5)


def test_networks_that_cannot_be_split_take_whole_batches(open_coded: OpenCoded, pieces: list[int]) -> None:
    results, _ = finetune_on_coded(_Undecided(), open_coded, FinetuneConfig(epochs=1, cache="no"))
    assert len(results) == 1 and not pieces


@pytest.mark.parametrize("fields", [{"augmentation": "test_flip"}, {"augmentation": "test_shift"}, {"cache": "no"}])
def test_images_that_differ_between_epochs_are_not_cached(fields: dict, open_coded: OpenCoded) -> None:
    assert _finetuned(RESNET, open_coded, **fields)[2].counters.num_images == 63


def test_flips_at_rate_zero_are_cached(open_coded: OpenCoded) -> None:
    assert _finetuned(RESNET, open_coded, augmentation="test_flip", hflip=0.0)[2].counters.num_images == 0


class _Undecided(nn.Module):
    """A forward that looks at values, which cannot be recorded, around trainable and frozen parts."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        found = self.norm(self.conv(images)).relu()
        if found.sum() < 0:
            found = -found
        return self.fc(found.mean((2, 3)))


class _Forgetful(_Undecided):
    """Its output depends on a condition that the graph misses: whether it is recorded."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scale = 1.0 if isinstance(images, torch.fx.Proxy) else 2.0
        return self.fc(self.norm(self.conv(images)).relu().mean((2, 3))) * scale


class _FromTheStart(nn.Module):
    """Its first layer is trainable."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(images.mean((2, 3)))


@pytest.mark.parametrize(
    ("net", "reason"), [(_Undecided(), "cannot be recorded"), (_Forgetful(), "do not give what the network gives")]
)
def test_networks_that_cannot_be_split_are_finetuned_without_cache(
    net: nn.Module, reason: str, open_coded: OpenCoded, capsys: pytest.CaptureFixture[str]
) -> None:
    results, loader = finetune_on_coded(net, open_coded, FinetuneConfig(epochs=2, augmentation="test"))
    said = [line for line in capsys.readouterr().err.splitlines() if "evaluated in every epoch, because" in line]
    assert len(said) == 1 and reason in said[0]
    assert len(results) == 2 and loader.counters.num_images == 48


def test_the_split_point_may_be_after_pooling() -> None:
    """The value at the split point is the mean color, not the image."""
    net = _FromTheStart()
    parts = split(net, (net.fc,), torch.randn(2, 3, 16, 16), CPU)
    assert parts.num_values == 3
    with pytest.raises(CannotSplitError, match="the first layer is trainable"):
        split(nn.Sequential(nn.Conv2d(3, 2, 1)), (), torch.randn(2, 3, 16, 16), CPU)


@pytest.mark.slow
def test_a_split_point_of_several_values() -> None:
    """PNASNet's last cell takes two values; its last BatchNorms are in four parallel branches."""
    net, images = create(PNASNET), torch.randn(3, 3, 32, 32)
    for layers in ("classifier_bn", "paper"):
        chosen = trainable_layers(net, probe_network(net, 32), FinetuneConfig(layers=layers))  # type: ignore[arg-type]
        freeze_except(net, chosen.modules)
        parts = split(net, chosen.modules, images[:2], CPU)
        rows = parts.backbone(images)
        assert rows.shape == (3, parts.num_values) and not rows.requires_grad
        net.eval()
        assert parts.head(rows).requires_grad
        torch.testing.assert_close(parts.head(rows), net(images), rtol=1e-4, atol=1e-5)


def test_values_beyond_half_precision_are_refused(open_coded: OpenCoded) -> None:
    net = create(RESNET)
    with torch.no_grad():
        net.layer4[0].conv2.weight *= 1e6
    with pytest.raises(InputError, match=r"use finetune\.cache_dtype=fp32"):
        finetune_on_coded(net, open_coded, FinetuneConfig(epochs=1, augmentation="test"))
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_without_room_fine_tuning_continues_uncached(
    open_coded: OpenCoded, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoRoomError, match=r"they would take .* GiB, and .* free"):
        FeatureCache(open_coded(), 2**45, FinetuneConfig(cache_dir=tmp_path))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    _, results, loader = _finetuned(RESNET, open_coded, cache_memory=0.0, cache_dir=tmp_path)
    assert "evaluated in every epoch, because they would take" in capsys.readouterr().err
    assert loader.counters.num_images == 63 and len(results) == 3 and not list(tmp_path.iterdir())


def test_a_missing_folder_is_refused(open_coded: OpenCoded, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is not a folder"):
        FeatureCache(open_coded(), 8, FinetuneConfig(cache_dir=tmp_path / "nowhere", cache_memory=0.0))


@pytest.mark.slow
def test_pnasnet_cached_equals_uncached(open_coded: OpenCoded) -> None:
    slow, *_ = _finetuned(PNASNET, open_coded, cache="no", epochs=1, lr=0.02)
    fast, _, loader = _finetuned(PNASNET, open_coded, epochs=1, lr=0.02)
    assert loader.counters.num_images == 0 and _distance(fast, slow) < 2e-5


def test_epochs_come_in_the_loaders_order(open_coded: OpenCoded) -> None:
    loader = open_coded(shuffle=True, drop_last=True, batch_size=7, seed=9)
    cache = FeatureCache(loader, 2, FinetuneConfig())
    cache._rows[:], cache._labels[:] = np.arange(48).reshape(24, 2), np.arange(24)
    for epoch in (0, 1):
        cache.set_epoch(epoch)
        expected = [batch.indices.tolist() for batch in loader]
        got = list(cache)
        assert [batch.indices.tolist() for batch in got] == expected and len(cache) == 3
        assert all((batch.images[:, 1] == 2 * batch.labels + 1).all() for batch in got)
        assert [batch.labels.tolist() for batch in got] == expected


def test_backbone_and_head_agree_with_the_network_in_bf16() -> None:
    net = create(RESNET)
    chosen = trainable_layers(net, probe_network(net, 32), FinetuneConfig())
    precision, images = Precision("bf16", torch.device("cpu")), torch.randn(4, 3, 32, 32)
    parts = split(net, chosen.modules, images[:2], precision)
    with torch.inference_mode(), precision.autocast():
        rows = parts.backbone(images)
        assert rows.shape == (4, 48)
        torch.testing.assert_close(parts.head(rows), net(images), rtol=0.05, atol=0.02)
