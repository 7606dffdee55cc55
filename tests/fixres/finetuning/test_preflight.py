"""What ends a fix in a mistake is found before it: each refusal by hand, and no refusal of what then works."""

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
from pipelines.spec import InputError
from tests.fixres.families import RESNET, create

OPTIM = OptimConfig(batch_size=4)


def loader(num_samples: int = 16, shares_boxes: bool = True) -> Any:
    return SimpleNamespace(num_samples=num_samples, shares_boxes=shares_boxes)


@pytest.mark.parametrize(
    ("config", "optim", "message"),
    [
        (FinetuneConfig(batch_size=17), OPTIM, "^finetune.batch_size=17 is more than a fix has, 16 training images"),
        (FinetuneConfig(), OptimConfig(batch_size=32), "^optim.batch_size=32 is more"),
        (FinetuneConfig(batch_size=1), OPTIM, "BatchNorm cannot learn from 1 image"),
        (FinetuneConfig(layers="last_blocks", num_blocks=99), OPTIM, "finetune.num_blocks=99"),
        (FinetuneConfig(cache_dir=Path("/nowhere")), OPTIM, "finetune.cache_dir=/nowhere"),
    ],
)
def test_refused(config: FinetuneConfig, optim: OptimConfig, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        check_finetune(create(RESNET), loader(), config, optim, 32)
    assert "\n" not in str(caught.value)


def test_the_limits_are_exact() -> None:
    """All images in one batch; one image where its feature map has several values, or nothing has statistics."""
    net = create(RESNET)
    check_finetune(net, loader(), FinetuneConfig(batch_size=16), OPTIM, 32)
    check_finetune(net, loader(), FinetuneConfig(batch_size=1), OPTIM, 64)
    check_finetune(net, loader(), FinetuneConfig(batch_size=1, layers="classifier"), OPTIM, 32)


def test_engines_with_crops_of_their_own_cannot_shift_them() -> None:
    shift = FinetuneConfig(augmentation="test_shift")
    check_finetune(create(RESNET), loader(), shift, OPTIM, 32)
    with pytest.raises(InputError, match="draws its own crops and cannot shift them"):
        check_finetune(create(RESNET), loader(shares_boxes=False), shift, OPTIM, 32)


def test_processes_share_a_batch_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "num_processes", lambda: 3)
    check_finetune(create(RESNET), loader(), FinetuneConfig(batch_size=6), OPTIM, 32)
    with pytest.raises(InputError, match=r"finetune\.batch_size=8 does not divide among 3 processes"):
        check_finetune(create(RESNET), loader(), FinetuneConfig(batch_size=8), OPTIM, 32)


def test_a_classifier_without_bias_cannot_be_adapted() -> None:
    net = create(RESNET)
    net.fc = nn.Linear(net.fc.in_features, 2, bias=False)
    check_finetune(net, loader(), FinetuneConfig(), OPTIM, 32)
    with pytest.raises(InputError, match="needs a classifier with bias"):
        check_finetune(net, loader(), FinetuneConfig(adapt="frechet"), OPTIM, 32)


def test_the_network_is_left_as_it_was() -> None:
    net = create(RESNET).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    hooks = [len(module._forward_pre_hooks) for module in net.modules()]
    torch.manual_seed(5)
    check_finetune(net, loader(), FinetuneConfig(batch_size=1), OPTIM, 64)
    assert torch.rand(1).item() == torch.rand(1, generator=torch.Generator().manual_seed(5)).item()
    assert all(module.training for module in net.modules()) and all(p.requires_grad for p in net.parameters())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert [len(module._forward_pre_hooks) for module in net.modules()] == hooks
