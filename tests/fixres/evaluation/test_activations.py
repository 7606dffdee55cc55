"""Pooled activations: networks whose activations are known, and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import timm
import torch
from torch import nn

from fixres.evaluation.activations import activation_statistics, pooled_activations
from fixres.models.factory import Normalize
from fixres.models.predictor import Predictor
from fixres.models.probe import probe_network
from fixres.pipelines.spec import Batch, InputError, Loader
from tests.fixres.conftest import CPU

_RAW = Normalize((0.0, 0.0, 0.0), (1 / 255,) * 3)  # pixels as they are


class Pictures:
    """A loader of given gray levels: batch by batch, uint8 (B, r, r, 3) with channel c of image i at levels[i][c]."""

    def __init__(self, levels: np.ndarray, batch_size: int = 3, bright_side: int | None = None) -> None:
        self.levels, self.batch_size, self.bright_side = np.asarray(levels, np.uint8), batch_size, bright_side
        self.resolution = 0

    def set_resolution(self, resolution: int) -> None:
        self.resolution = resolution

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, len(self.levels), self.batch_size):
            levels = torch.from_numpy(self.levels[start : start + self.batch_size])
            images = levels[:, None, None, :].repeat(1, self.resolution, self.resolution, 1)
            if self.bright_side is not None:  # only a square at the corner is not black
                images[:, self.bright_side :] = 0
                images[:, :, self.bright_side :] = 0
            index = torch.arange(start, start + len(levels))
            yield Batch(images, index, index)


class Shifted(nn.Module):
    """Pooled activations are relu(pixel - 100), averaged over the picture."""

    def __init__(self, classifier: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.classifier = classifier or nn.Linear(3, 2)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(3)[..., None, None])
            self.conv.bias.fill_(-100)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.conv(images).relu().mean((2, 3))
        return self.classifier(pooled if isinstance(self.classifier, nn.Linear) else pooled[..., None, None]).flatten(1)


LEVELS = [[0, 100, 110], [120, 90, 200], [255, 101, 100], [50, 130, 140]]
POOLED = np.maximum(np.array(LEVELS, float) - 100, 0)


@pytest.mark.parametrize("classifier", [nn.Linear(3, 2), nn.Conv2d(3, 2, 1)])
def test_known_activations(classifier: nn.Module) -> None:
    net = Shifted(classifier)
    (one,) = activation_statistics(Predictor(net, _RAW, CPU), Pictures(LEVELS), [8], train_res=8)
    assert (one.test_res, one.num_images, one.num_channels, one.distance) == (8, 4, 3, 0)
    assert one.zero_share == 5 / 12  # 0, 100, 90, 100 and 50
    assert one.mean == pytest.approx(POOLED.mean(), abs=1e-4)
    assert one.std == pytest.approx(POOLED.std(), abs=1e-4)
    assert len(one.quantiles) == 201
    assert one.quantiles[:1] + one.quantiles[100:101] + one.quantiles[-1:] == pytest.approx(
        (0, sorted(POOLED.ravel())[6], 155), abs=1e-4
    )


def test_order_and_channels_of_the_values() -> None:
    loader, net = Pictures(LEVELS), Shifted()
    loader.set_resolution(8)
    for num in (1, 3, 4, 9):
        values = pooled_activations(Predictor(net, _RAW, CPU), net.classifier, loader, num)
        assert values.dtype == np.float32 and values == pytest.approx(POOLED[:num], abs=1e-4)


def test_resolutions_with_a_growing_black_part() -> None:
    """A bright square of 8 px fills a picture of 8 px, a quarter of one of 16 px, a sixteenth of one of 32 px."""
    loader = Pictures(LEVELS, bright_side=8)
    results = activation_statistics(Predictor(Shifted(), _RAW, CPU), loader, [32, 8], train_res=16)
    assert [one.test_res for one in results] == [32, 8]
    assert [one.mean for one in results] == pytest.approx([POOLED.mean() / 16, POOLED.mean()], abs=1e-4)
    # All values move the same way, so the distance is that of the means.
    at_train = POOLED.mean() / 4
    assert [one.distance for one in results] == pytest.approx(
        [at_train - POOLED.mean() / 16, POOLED.mean() - at_train], abs=1e-4
    )


def test_real_network_against_forward_head(tiny_net: nn.Module, open_coded: Callable[..., Loader]) -> None:
    """Real images of an engine, against timm's own computation of the pooled features."""
    loader, normalize = open_coded(resolution=48), Normalize()
    predictor = Predictor(tiny_net.eval(), normalize, CPU)
    classifier = probe_network(tiny_net, 48).head.classifier
    assert classifier is tiny_net.get_classifier()
    values = pooled_activations(predictor, classifier, loader, 20)
    with torch.inference_mode():
        images = torch.cat([batch.images for batch in loader])[:20]
        expected = tiny_net.forward_head(tiny_net.forward_features(normalize(images)), pre_logits=True)
    assert values == pytest.approx(expected.numpy(), abs=1e-4)
    first, again = (activation_statistics(predictor, loader, [32, 64], 48) for _ in range(2))
    assert first == again and all(one.distance > 0 and one.num_images == 24 for one in first)
    assert not tiny_net.training and not classifier._forward_pre_hooks


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv3_small_050", "convnext_atto", "vit_tiny_patch16_224"])
def test_other_families(name: str, open_coded: Callable[..., Loader]) -> None:
    options = {"img_size": 32} if name.startswith("vit") else {}
    net = timm.create_model(name, num_classes=2, **options)
    (one,) = activation_statistics(Predictor(net, Normalize(), CPU), open_coded(resolution=32), [32], 32, num_images=2)
    assert (one.num_images, one.num_channels) == (2, net.get_classifier().in_features)


class Unpooled(nn.Module):
    """A convolution as classifier, before pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, 2, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(images).mean((2, 3))


class Twice(Shifted):
    """Calls its classifier twice."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.classifier(torch.zeros(len(images), 3))
        return super().forward(images)


class Bypassed(Shifted):
    """Uses its classifier's weights, but does not call it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.conv(images).mean((2, 3)), self.classifier.weight)


class Endless(Shifted):
    """Activations that are not finite."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.conv(images).mean((2, 3)) * math.inf)


@pytest.mark.parametrize(
    ("net", "levels", "word"),
    [
        (Unpooled(), LEVELS, "not pooled"),
        (Twice(), LEVELS, "calls its classifier 2 times"),
        (Bypassed(), LEVELS, "calls its classifier 0 times"),
        (Endless(), LEVELS, "not finite"),
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten()), LEVELS, "do not come from a linear layer"),
        (Shifted(), np.zeros((0, 3)), "no images"),
    ],
)
def test_mistakes_are_named(net: nn.Module, levels: object, word: str) -> None:
    with pytest.raises(InputError, match=word):
        activation_statistics(Predictor(net, _RAW, CPU), Pictures(levels), [8], train_res=8)
    assert not any(module._forward_pre_hooks for module in net.modules())
