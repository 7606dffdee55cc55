"""Tricks of optimizer and network: schedules by literal values, groups, gammas, micro-batches, the average."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from fixres.config.recipe import ModelConfig, OptimConfig, StepDecay
from fixres.models.factory import Normalize, create_model
from fixres.pipelines.spec import Batch, Counters, InputError
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, WeightEMA, create_optimizer, set_lr
from fixres.training.schedule import training_lr
from fixres.training.trainer import Trainer
from tests.fixres.conftest import CPU, TINY


def test_the_papers_steps() -> None:
    """0.1, divided by 10 at epochs 30, 60 and 90 (section 2.1), after 5 epochs of warm-up (3.1)."""
    config = OptimConfig(lr=0.1, warmup_epochs=5, steps=StepDecay())
    table = [training_lr(epoch, 120, config) for epoch in (0, 1, 2.5, 5, 29.99, 30, 59.9, 60, 90, 119.9)]
    assert table == pytest.approx([0, 0.02, 0.05, 0.1, 0.1, 0.01, 0.01, 0.001, 0.0001, 0.0001])
    cold = OptimConfig(lr=0.1, batch_size=1024, warmup_epochs=0, steps=StepDecay([2], 0.5))
    assert [training_lr(epoch, 4, cold) for epoch in (0, 1.9, 2, 3)] == pytest.approx([0.4, 0.4, 0.2, 0.2])


def test_without_steps_the_rate_falls_as_half_a_cosine() -> None:
    config = OptimConfig(lr=0.8, batch_size=256, warmup_epochs=2)
    table = [training_lr(epoch, 10, config) for epoch in (0, 1, 2, 4, 6, 8, 10)]
    assert table == pytest.approx([0, 0.4, 0.8, 0.6828427, 0.4, 0.1171573, 0.0], abs=1e-7)


@pytest.mark.parametrize("name", ["resnet10t", "resnet26d", "mobilenetv3_small_050"])
def test_decay_groups_are_complete_and_disjoint(name: str) -> None:
    net = create_model(ModelConfig(name), 3)
    groups = create_optimizer(net, OptimConfig(weight_decay=0.01)).param_groups
    members = [id(p) for group in groups for p in group["params"]]
    assert len(members) == len(set(members))
    assert set(members) == {id(p) for p in net.parameters()}
    spared = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    norms = {id(p) for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters(recurse=False)}
    biases = {id(m.bias) for m in net.modules() if getattr(m, "bias", None) is not None}
    assert spared == norms | biases and {g["weight_decay"] for g in groups} == {0, 0.01}


def test_the_baseline_decays_all() -> None:
    net = create_model(TINY, 3)
    groups = create_optimizer(net, OptimConfig(weight_decay=0.01, decay_all=True)).param_groups
    assert {group["weight_decay"] for group in groups} == {0.01}
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


@pytest.mark.parametrize(("name", "last"), [("resnet10t", "bn2"), ("resnet26", "bn3"), ("resnet26d", "bn3")])
def test_gamma_is_zero_in_the_last_batchnorm_of_each_block_and_only_there(name: str, last: str) -> None:
    for asked, expected in ((True, None), (False, set())):
        net = create_model(ModelConfig(name, {"zero_init_last": asked}), 2)
        norms = {n: m for n, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
        zero = {n for n, m in norms.items() if (m.weight == 0).all()}
        blocks = {n for n in norms if n.endswith(f".{last}") and n.startswith("layer")}
        assert zero == (blocks if expected is None else expected)
        assert all((m.weight == 1).all() for n, m in norms.items() if n not in zero) and blocks


def test_xavier_has_its_bounds_and_deviation() -> None:
    torch.manual_seed(0)
    net = create_model(ModelConfig("resnet26", init="xavier"), 1000)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        area = math.prod(layer.weight.shape[2:])
        bound = math.sqrt(6 / (area * (layer.weight.shape[0] + layer.weight.shape[1])))
        assert layer.weight.abs().max() <= bound
        assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert (net.fc.bias == 0).all() and len(layers) > 20
    assert (net.layer1[0].bn3.weight == 0).all()


def test_blur_pooling_by_name() -> None:
    from timm.layers import BlurPool2d

    net = create_model(ModelConfig(TINY.name, {**TINY.kwargs, "aa_layer": "blurpool"}), 2)
    assert any(isinstance(m, BlurPool2d) for m in net.modules())
    with pytest.raises(InputError, match="aa_layer='smear' is unknown; use blurpool"):
        create_model(ModelConfig(TINY.name, {"aa_layer": "smear"}), 2)


class _Flat(nn.Module):
    """A network without BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.conv(images).relu().mean((2, 3)))


def _weights_after(accumulate: int, micro: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    net, generator = _Flat(), torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (48, 8, 8, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (48,), generator=generator)
    stepper = Stepper(create_optimizer(net, OptimConfig(weight_decay=0.01)), CPU, accumulate)
    set_lr(stepper.optimizer, 0.5)
    trainer = Trainer(net, Normalize(), stepper, CrossEntropy(0.1))
    for number, start in enumerate(range(0, 48, micro)):
        trainer.step(images[start : start + micro], labels[start : start + micro], number)
    return [p.detach() for p in net.parameters()]


def test_micro_batches_make_the_step_of_one_large_batch() -> None:
    large, small = _weights_after(1, 24), _weights_after(4, 6)
    for a, b in zip(large, small, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    other = _weights_after(1, 6)
    assert not torch.allclose(large[0], other[0], rtol=1e-3)


class _Batches:
    """A loader of seven made batches of four images."""

    batch_size, num_samples, resolution = 4, 28, 8

    def __init__(self) -> None:
        self.counters = Counters()
        generator = torch.Generator().manual_seed(4)
        images = torch.randint(0, 256, (7, 4, 8, 8, 3), dtype=torch.uint8, generator=generator)
        labels = torch.randint(0, 3, (7, 4), generator=generator)
        self._batches = [Batch(*pair, torch.arange(4)) for pair in zip(images, labels, strict=True)]

    def __len__(self) -> int:
        return 7

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)


def test_an_epoch_leaves_out_micro_batches_that_are_no_complete_step() -> None:
    net, rates = _Flat(), []
    trainer = Trainer(net, Normalize(), Stepper(create_optimizer(net, OptimConfig()), CPU, 3), CrossEntropy(0.1))
    result = trainer.epoch(_Batches(), lambda done: rates.append(done) or 0.1, "train")  # type: ignore[arg-type]
    assert rates == [0, 0, 0, 0.5, 0.5, 0.5] and result.num_images == 24
    large = Trainer(net, Normalize(), Stepper(create_optimizer(net, OptimConfig()), CPU, 8), CrossEntropy(0.1))
    with pytest.raises(InputError, match="too few images for 8 micro-batches"):
        large.epoch(_Batches(), lambda _: 0.1, "train")  # type: ignore[arg-type]


def test_the_average_follows_its_recursion() -> None:
    net = create_model(TINY, 2)
    average, generator = WeightEMA(net, 0.9), np.random.default_rng(0)
    weights, expected = generator.normal(size=60), None
    for n, weight in enumerate(weights, start=1):
        with torch.no_grad():
            net.fc.bias.fill_(float(weight))
            net.bn1.running_mean.fill_(float(weight))
        average.update()
        decay = min(0.9, 1 - n ** (-2 / 3))
        expected = weight if expected is None else decay * expected + (1 - decay) * weight
    assert average.net.fc.bias[0].item() == pytest.approx(expected, rel=1e-4)
    assert average.net.bn1.running_mean[0].item() == pytest.approx(expected, rel=1e-4)
    assert net.fc.bias[0].item() == pytest.approx(weights[-1], rel=1e-6)
    assert not average.net.training


def test_the_average_is_updated_once_for_each_update() -> None:
    net, seen = _Flat(), []

    class _Counting:
        def update(self) -> None:
            seen.append(1)

    stepper = Stepper(create_optimizer(net, OptimConfig()), CPU, 2, _Counting())  # type: ignore[arg-type]
    for _ in range(4):
        stepper.step(net(torch.randn(2, 3, 8, 8)).sum())
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"accumulate": 3, "batch_size": 32}, "optim.accumulate=3 must divide optim.batch_size=32"),
        ({"accumulate": 0}, "optim.accumulate=0"),
        ({"ema": 1.0}, "optim.ema=1.0 must be in"),
    ],
)
def test_impossible_settings_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OptimConfig(**values)


@pytest.mark.parametrize("values", [{"milestones": [60, 30]}, {"milestones": [0]}, {"factor": 1.0}])
def test_impossible_steps_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"optim\.steps"):
        StepDecay(**values)
