"""Mistakes are found before a fine-tuning: each is refused, and nothing that works is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.finetuning import preflight
from fixres.finetuning.preflight import check_finetune
from fixres.models.probe import probe_network
from fixres.pipelines.spec import InputError
from tests.fixres.families import RESNET, create

OPTIM = OptimConfig(batch_size=4)


def loader(num_samples: int = 16, shares_boxes: bool = True) -> Any:
    return SimpleNamespace(num_samples=num_samples, shares_boxes=shares_boxes)


def _check(
    net: nn.Module, config: FinetuneConfig, optim: OptimConfig = OPTIM, side: int = 32, shares_boxes: bool = True
) -> None:
    check_finetune(net, probe_network(net, side), loader(shares_boxes=shares_boxes), config, optim)


@pytest.mark.parametrize(
    ("config", "optim", "message"),
    [
        (
            FinetuneConfig(batch_size=17),
            OPTIM,
            "^finetune.batch_size=17 is larger than the number of training images, 16",
        ),
        (FinetuneConfig(), OptimConfig(batch_size=32), "^optim.batch_size=32 is larger"),
        (FinetuneConfig(batch_size=1), OPTIM, "BatchNorm cannot learn from 1 image"),
        (FinetuneConfig(layers="last_blocks", num_blocks=99), OPTIM, "finetune.num_blocks=99"),
        (FinetuneConfig(cache_dir=Path("/nowhere")), OPTIM, "finetune.cache_dir=/nowhere"),
    ],
)
def test_refused(config: FinetuneConfig, optim: OptimConfig, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        _check(create(RESNET), config, optim)
    assert "\n" not in str(caught.value)


def test_the_limits_are_exact() -> None:
    """All images in one batch; one image if its feature map has several values or no layer has statistics."""
    net = create(RESNET)
    _check(net, FinetuneConfig(batch_size=16))
    _check(net, FinetuneConfig(batch_size=1), side=64)
    _check(net, FinetuneConfig(batch_size=1, layers="classifier"))


def test_engines_with_crops_of_their_own_cannot_shift_them() -> None:
    shift = FinetuneConfig(augmentation="test_shift")
    _check(create(RESNET), shift)
    with pytest.raises(InputError, match="draws its own crops and cannot shift them"):
        _check(create(RESNET), shift, shares_boxes=False)


def test_processes_share_a_batch_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "num_processes", lambda: 3)
    _check(create(RESNET), FinetuneConfig(batch_size=6))
    with pytest.raises(InputError, match=r"finetune\.batch_size=8 is not divisible by 3 processes"):
        _check(create(RESNET), FinetuneConfig(batch_size=8))


def test_a_classifier_without_bias_cannot_be_adapted() -> None:
    net = create(RESNET)
    net.fc = nn.Linear(net.fc.in_features, 2, bias=False)
    _check(net, FinetuneConfig())
    with pytest.raises(InputError, match="needs a classifier with bias"):
        _check(net, FinetuneConfig(adapt="frechet"))


def test_the_network_is_left_as_it_was() -> None:
    net = create(RESNET).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    hooks = [len(module._forward_pre_hooks) for module in net.modules()]
    torch.manual_seed(5)
    _check(net, FinetuneConfig(batch_size=1), side=64)
    assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(5)).item()
    assert all(module.training for module in net.modules()) and all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [len(module._forward_pre_hooks) for module in net.modules()] == hooks
