"""Whole batches: random numbers as functions of (seed, epoch, step), processes, devices, settings that are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fixres.augment.batch_transform import BatchTransform
from fixres.augment.color import pca_shifts
from fixres.config.augment import AugmentConfig
from fixres.pipelines.spec import InputError


def _images(num: int = 4, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, side, side, 3), dtype=torch.uint8, generator=generator)


def test_the_noise_of_a_batch_has_the_given_deviation() -> None:
    """Mid gray images show the shift itself; its covariance is V diag(0.1 * values)^2 V', plus that of rounding."""
    gray = torch.full((20_000, 1, 1, 3), 128, dtype=torch.uint8)
    images, _ = BatchTransform(AugmentConfig(pca=0.1), 2, 0)(gray, torch.zeros(20_000, dtype=torch.int64), 0)
    shifts = pca_shifts(0.1 * np.eye(3))
    expected = shifts.T @ shifts + np.eye(3) / 12
    assert np.cov(images.view(-1, 3).numpy().T.astype(float)) == pytest.approx(expected, rel=0.05)


def _batch(seed: int, epoch: int, step: int, **config: Any) -> torch.Tensor:
    transform = BatchTransform(AugmentConfig(**config), 5, seed)
    transform.set_epoch(epoch)
    return transform(_images(), torch.arange(4), step)[0]


_OTHERS = [
    {"auto_augment": "rand-m9-mstd0.5-inc1"},
    {"auto_augment": "ta_wide"},
    {"color_jitter": 0.3, "gaussian_blur_prob": 0.5},
    {"re_prob": 1.0, "re_mode": "rand"},
    {"re_prob": 1.0, "re_mode": "pixel"},
]


@pytest.mark.parametrize("config", [{"color": 0.4}, {"pca": 0.1}, {"mixup": 0.2}, {"cutmix": 1.0}, *_OTHERS])
def test_random_numbers_are_functions_of_seed_epoch_and_step(config: dict[str, Any]) -> None:
    once = _batch(7, 3, 5, **config)
    torch.manual_seed(99)
    np.random.seed(99)
    assert torch.equal(once, _batch(7, 3, 5, **config))
    for other in [(8, 3, 5), (7, 4, 5), (7, 3, 6)]:
        assert not torch.equal(once, _batch(*other, **config))


def test_images_of_a_batch_are_recolored_each_on_its_own_and_the_batch_is_left_alone() -> None:
    same = _images(1).repeat(3, 1, 1, 1)
    before = same.clone()
    images, labels = BatchTransform(AugmentConfig(color=0.4), 2, 0)(same, torch.tensor([0, 1, 0]), 0)
    assert not torch.equal(images[0], images[1]) and not torch.equal(images[1], images[2])
    assert torch.equal(same, before) and labels.tolist() == [0, 1, 0]


def test_the_colors_do_not_depend_on_whether_images_are_mixed() -> None:
    plain = _batch(7, 3, 5, color=0.4)
    cut = _batch(7, 3, 5, color=0.4, cutmix=1.0)
    assert 0 < (cut == plain).all(-1).float().mean() < 1  # outside the box


@pytest.mark.parametrize("number", [2, 4])
def test_processes_recolor_a_batch_as_one_does(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal images show the draws: each place of the batch has its own, whichever process has it."""
    images, labels = _images(1).repeat(8, 1, 1, 1), torch.arange(8)
    config = AugmentConfig(color=0.4, pca=0.1, auto_augment="rand-n4-p1-inc1", re_prob=1, re_mode="rand")
    transform = BatchTransform(config, 8, 7)
    whole = transform(images, labels, 5)[0]
    assert len({image.numpy().tobytes() for image in whole}) == 8
    monkeypatch.setattr("fixres.augment.batch_transform.num_processes", lambda: number)
    parts = []
    for rank, part in enumerate(images.chunk(number)):
        monkeypatch.setattr("fixres.augment.batch_transform.rank", lambda rank=rank: rank)
        parts.append(transform(part, labels[: len(part)], 5)[0])
    assert torch.equal(torch.cat(parts), whole)


def test_draws_of_a_process_alone_are_pinned() -> None:
    """Records in benchmarks/results are of these; other draws make other trainings."""
    shades = torch.tensor([[200, 100, 50]], dtype=torch.uint8).expand(3, 1, 1, 3).contiguous()
    transform = BatchTransform(AugmentConfig(color=0.4, pca=0.1), 2, 7)
    transform.set_epoch(3)
    assert transform(shades, torch.zeros(3, dtype=torch.int64), 5)[0].view(3, 3).tolist() == [
        [195, 160, 35], [212, 62, 156], [163, 62, 149],
    ]  # fmt: skip


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
@pytest.mark.parametrize("config", [{"color": 0.4, "pca": 0.1}, {"mixup": 0.2}, {"cutmix": 1.0}, *_OTHERS[:4]])
def test_a_gpu_makes_the_same_batches(config: dict[str, Any]) -> None:
    transform, labels = BatchTransform(AugmentConfig(**config), 5, 3), torch.arange(4)
    images, targets = transform(_images(), labels, 2)
    there, told = transform(_images().cuda(), labels.cuda(), 2)
    assert (there.cpu().int() - images.int()).abs().max() <= 1  # a value between two may round either way
    torch.testing.assert_close(told.cpu(), targets)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"color": 1.2}, "augment.color=1.2 must be in"),
        ({"pca": -0.1}, "augment.pca=-0.1 must be 0"),
        ({"mixup": float("nan")}, "augment.mixup=nan"),
        ({"cutmix": float("inf")}, "augment.cutmix=inf"),
        ({"cutmix_prob": 2}, "augment.cutmix_prob=2"),
        ({"auto_augment": "rand-x9"}, "augment.auto_augment=rand-x9 is not known; try rand-m6"),
        ({"auto_augment": "rand-m6-tw0"}, "augment.auto_augment=rand-m6-tw0 is not known"),
        ({"grayscale_prob": 1.5}, "augment.grayscale_prob=1.5"),
        ({"re_count": 0}, "augment.re_count=0 must be 1"),
    ],
)
def test_impossible_settings_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AugmentConfig(**config)


@pytest.mark.parametrize("images", [_images().permute(0, 3, 1, 2), _images().float(), _images()[0]])
def test_batches_of_another_layout_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(
        InputError, match=r"not uint8 \(B, H, W, 3\); of fixres\.Loader use normalize=False and images\.perm"
    ):
        BatchTransform(AugmentConfig(color=0.4), 2, 0)(images, torch.arange(4), 0)
