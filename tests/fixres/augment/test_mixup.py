"""mixup and CutMix: pixels and labels against NumPy, weights against their law, the loss against its formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fixres.augment.mixup import Mix, draw_mix, mixed
from fixres.config.augment import AugmentConfig
from fixres.training.losses import CrossEntropy


def _batch(num: int = 5, side: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (num, side, side, 3), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 4, (num,), generator=generator)


def _labels(labels: np.ndarray, weight: float) -> np.ndarray:
    return weight * np.eye(4)[labels] + (1 - weight) * np.eye(4)[labels[::-1]]


@pytest.mark.parametrize("weight", [0.0, 0.3, 0.75, 1.0])
@pytest.mark.parametrize("num", [4, 5])
def test_mixup_agrees_with_numpy(weight: float, num: int) -> None:
    images, labels = _batch(num)
    before = images.clone()
    ours, targets = mixed(images, labels, Mix(weight), 4)
    exact = weight * images.numpy() + (1 - weight) * images.numpy()[::-1].astype(float)
    assert ours.dtype == torch.uint8 and ours.is_contiguous()
    assert np.abs(ours.numpy() - exact).max() <= 0.5 + 1e-4
    assert targets.numpy() == pytest.approx(_labels(labels.numpy(), weight), abs=1e-6)
    assert torch.equal(images, before)


def test_cutmix_agrees_with_numpy() -> None:
    images, labels = _batch()
    before = images.clone()
    ours, targets = mixed(images, labels, Mix(0.7, (2, 7, 0, 4)), 4)
    exact = images.numpy().copy()
    exact[:, 2:7, 0:4] = images.numpy()[::-1][:, 2:7, 0:4]
    assert (ours.numpy() == exact).all() and not torch.equal(ours, images)
    assert targets.numpy() == pytest.approx(_labels(labels.numpy(), 0.7), abs=1e-6)
    assert torch.equal(images, before)


def _draws(num: int, side: int = 40, **config: float) -> list[Mix]:
    random = np.random.default_rng(4)
    return [draw_mix(AugmentConfig(**config), side, random) for _ in range(num)]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixups_weight_has_the_mean_and_deviation_of_its_beta(alpha: float) -> None:
    weights = np.array([mix.weight for mix in _draws(20_000, mixup=alpha)])
    assert weights.mean() == pytest.approx(0.5, abs=0.012)
    assert weights.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)
    assert weights.min() >= 0 and weights.max() <= 1


def test_cutmixs_weight_is_the_share_of_own_pixels() -> None:
    for mix in _draws(300, cutmix=1.0):
        first = torch.zeros(2, 40, 40, 3, dtype=torch.uint8)
        first[1] = 200
        images, targets = mixed(first, torch.tensor([0, 3]), mix, 4)
        own = (images[0] == 0).double().mean().item()
        assert targets[0].tolist() == pytest.approx([own, 0, 0, 1 - own], abs=1e-6)
        assert mix.weight == pytest.approx(own)


def test_cutmix_boxes_lie_anywhere() -> None:
    boxes = np.array([mix.box for mix in _draws(3000, cutmix=1.0)])
    covered = np.zeros((40, 40))
    for top, bottom, left, right in boxes:
        covered[top:bottom, left:right] += 1
    assert covered.min() > 0
    assert covered.T == pytest.approx(covered, rel=0.25)  # height and width are alike
    assert covered[::-1, ::-1] == pytest.approx(covered, rel=0.35)


def test_both_are_chosen_by_their_share() -> None:
    cut = np.mean([mix.box is not None for mix in _draws(5000, mixup=0.2, cutmix=1.0, cutmix_prob=0.3)])
    assert cut == pytest.approx(0.3, abs=0.025)
    assert all(mix.box is None for mix in _draws(50, mixup=0.2))
    assert all(mix.box is not None for mix in _draws(50, cutmix=1.0))


def test_label_sums_are_one() -> None:
    images, labels = _batch()
    for mix in _draws(50, side=9, mixup=0.2, cutmix=1.0):
        _, targets = mixed(images, labels, mix, 4)
        assert targets.sum(1).tolist() == pytest.approx([1.0] * 5, abs=1e-6)
        assert targets.min() >= 0


def test_smoothed_soft_labels_follow_the_formula() -> None:
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    images, labels = _batch()
    _, targets = mixed(images, labels, Mix(0.3), 4)
    smooth = 0.9 * _labels(labels.numpy(), 0.3) + 0.1 / 4
    log_softmax = logits.numpy() - np.log(np.exp(logits.numpy()).sum(1, keepdims=True))
    expected = -(smooth * log_softmax).sum(1).mean()
    assert CrossEntropy(0.1)(logits, targets, images).item() == pytest.approx(expected, rel=1e-5)


def test_soft_labels_of_one_class_cost_what_hard_ones_cost() -> None:
    images, labels = _batch()
    logits, loss = torch.randn(5, 4), CrossEntropy(0.1)
    hard = loss(logits, labels, images)
    torch.testing.assert_close(loss(logits, mixed(images, labels, Mix(1.0), 4)[1], images), hard)
