"""Adaptation without labels: samples of a known distribution, statistics by NumPy, folded lines by the network."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance
from torch import nn

from fixres.config.recipe import FinetuneConfig
from fixres.finetuning.adaptation import XI, Frechet, Line, adapt, fit, fold, matching_line, recalibrate
from fixres.models.factory import Normalize
from fixres.models.predictor import Predictor
from fixres.models.probe import probe_network
from fixres.pipelines.spec import InputError, Loader
from tests.fixres.conftest import CPU
from tests.fixres.evaluation.test_activations import LEVELS, Pictures
from tests.fixres.families import FAMILIES, RESNET, create

_RAW = Normalize((0.0, 0.0, 0.0), (1 / 255,) * 3)  # pixels as they are
_FRECHET = FinetuneConfig(adapt="frechet", epochs=0)


def _drawn(mu: float, sigma: float, num: int = 40_000, seed: int = 0) -> np.ndarray:
    """A sample of the paper's distribution, by inverting its distribution function."""
    p = np.random.default_rng(seed).random(num)
    return mu + sigma / XI * ((-np.log(p)) ** -XI - 1)


@given(mu=st.floats(-1, 2), sigma=st.floats(0.05, 3))
def test_the_distribution_is_found_again(mu: float, sigma: float) -> None:
    found = fit(_drawn(mu, sigma))
    assert found == pytest.approx(Frechet(mu, sigma), abs=0.04 * sigma)


def test_the_line_maps_one_distribution_to_the_other() -> None:
    """By hand: from (0.2, 0.1) to (0.5, 0.3) it is 3 x - 0.1."""
    assert matching_line(_drawn(0.2, 0.1), _drawn(0.5, 0.3, seed=1)) == pytest.approx((3, -0.1), abs=0.06)


@pytest.mark.parametrize("distribution", ["frechet", "gamma"])
def test_the_distance_falls(distribution: str) -> None:
    """On this distribution and on another one."""
    draw = np.random.default_rng(2)
    train, test = {
        "frechet": lambda: (_drawn(0.4, 0.2), _drawn(0.3, 0.15, seed=1)),
        "gamma": lambda: (draw.gamma(1.0, 0.5, 30_000), draw.gamma(2.0, 0.2, 30_000)),
    }[distribution]()
    line = matching_line(test, train)
    before, after = (wasserstein_distance(values, train) for values in (test, line.slope * test + line.offset))
    assert after < {"frechet": 0.1, "gamma": 0.7}[distribution] * before


def test_activations_that_are_zero_or_equal() -> None:
    with pytest.raises(InputError, match="100% of the pooled activations are 0"):
        matching_line(np.zeros(100), np.ones(100))
    with pytest.raises(InputError, match="do not vary"):
        matching_line(np.ones(100), np.ones(100))


@pytest.mark.parametrize("classifier", [nn.Linear(5, 3), nn.Conv2d(5, 3, 1)])
def test_a_folded_line_equals_the_line_before_the_classifier(classifier: nn.Module) -> None:
    values = torch.randn(7, 5) if isinstance(classifier, nn.Linear) else torch.randn(7, 5, 1, 1)
    expected = classifier(1.7 * values - 0.3)
    fold(Line(1.7, -0.3), classifier)
    torch.testing.assert_close(classifier(values), expected)


def test_a_classifier_without_bias_is_refused() -> None:
    with pytest.raises(InputError, match="needs a classifier with bias"):
        fold(Line(1, 1), nn.Linear(2, 2, bias=False))


class _Shifted(nn.Module):
    """Pooled activations are pixels over 255, larger by half and shifted where the picture is larger than 16 px."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = images.mean((2, 3))
        return self.fc(pooled if images.shape[-1] <= 16 else 1.5 * pooled + 0.25)


def test_the_classifier_gets_its_training_activations_again() -> None:
    levels = np.random.default_rng(3).integers(0, 256, (400, 3))
    net, loader = _Shifted(), Pictures(levels, batch_size=50)
    normalize = Normalize((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with torch.inference_mode():
        wanted = net(normalize(torch.from_numpy(levels.astype(np.uint8))[:, None, None, :]))
    loader.set_resolution(24)
    said = adapt(Predictor(net, normalize, CPU), loader, _FRECHET, 16, probe_network(net, 24))
    with torch.inference_mode():
        got = torch.cat([net(normalize(batch.images)) for batch in loader])
    # By hand: the inverse of 1.5 x + 0.25 is 0.667 x - 0.167.
    assert loader.resolution == 24 and "mapped by 0.667 x -0.167" in said and "16 px" in said
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_a_line_that_does_not_help_is_not_applied(open_coded: Callable[..., Loader]) -> None:
    net = create(RESNET)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    loader = open_coded(resolution=32, shuffle=True)
    said = adapt(Predictor(net, Normalize(), CPU), loader, _FRECHET, 32, probe_network(net, 32))
    assert "left unchanged" in said and "\n" not in said
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


class _Channels(nn.Module):
    """A BatchNorm whose input are pixels, and one whose input is the output of the first one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(2 * self.first(images) + 1).mean((2, 3))


def test_statistics_equal_numpys() -> None:
    """Over batches of 3 and 1 images: mean and variance of all pixels, not averages of the batches'."""
    net, loader = _Channels(), Pictures(LEVELS, batch_size=3, bright_side=4)
    loader.set_resolution(8)
    net.first.running_mean.fill_(77)
    assert recalibrate(Predictor(net, _RAW, CPU), loader, 100) == (3, 4)
    pixels = np.concatenate([batch.images.numpy() for batch in loader]).reshape(-1, 3).astype(float)
    np.testing.assert_allclose(net.first.running_mean, pixels.mean(0), rtol=1e-5)
    np.testing.assert_allclose(net.first.running_var, pixels.var(0, ddof=1), rtol=1e-5)
    # The input of the second are batches that the first has normalized by their own statistics, as in training.
    parts = [batch.images.numpy().reshape(-1, 3).astype(float) for batch in loader]
    fed = np.concatenate([2 * (p - p.mean(0)) / np.sqrt(p.var(0) + 1e-5) + 1 for p in parts])
    np.testing.assert_allclose(net.second.running_mean, fed.mean(0), rtol=1e-4)
    np.testing.assert_allclose(net.second.running_var, fed.var(0, ddof=1), rtol=1e-4)
    assert torch.equal(net.unused.running_mean, torch.zeros(3)) and torch.equal(net.unused.running_var, torch.ones(3))
    assert not any(m.training or m._forward_pre_hooks for m in net.modules()) and net.first.momentum == 0.1


def test_only_statistics_change_and_num_images_is_respected(open_coded: Callable[..., Loader]) -> None:
    net = create(RESNET)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    loader = open_coded(resolution=48)
    config = FinetuneConfig(adapt="batchnorm", epochs=0, adapt_images=9)
    said = adapt(Predictor(net, Normalize(), CPU), loader, config, 32, probe_network(net, 48))
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if name.endswith(("running_mean", "running_var"))}
    assert loader.counters.num_images == 16 and "from 16 images at 48 px" in said


def test_statistics_of_a_network_without_any(open_coded: Callable[..., Loader]) -> None:
    convnext = next(family for family in FAMILIES if family.name == "convnext_atto")
    with pytest.raises(InputError, match="ConvNeXt has no BatchNorm with statistics"):
        recalibrate(Predictor(create(convnext), Normalize(), CPU), open_coded(), 8)


def test_statistics_of_one_value_are_refused() -> None:
    loader = Pictures(LEVELS, batch_size=1)
    loader.set_resolution(1)
    with pytest.raises(InputError, match="from a batch of 1; raise batch_size"):
        recalibrate(Predictor(_Channels(), _RAW, CPU), loader, 8)
