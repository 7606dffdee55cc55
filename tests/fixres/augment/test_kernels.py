"""Compiled colors and mixing against NumPy, on every shape, on views, and on the largest values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres.augment.kernels import blended_on_cpu, recolored_on_cpu


def _images(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def _check_colors(images: torch.Tensor, seed: int) -> None:
    random = np.random.default_rng(seed)
    matrices, shifts = random.normal(size=(len(images), 3, 3)), 30 * random.normal(size=(len(images), 3))
    before = images.clone()
    ours = recolored_on_cpu(images, torch.from_numpy(matrices).float(), torch.from_numpy(shifts).float())
    exact = np.einsum("bij,bhwj->bhwi", matrices, images.numpy()) + shifts[:, None, None]
    assert ours.dtype == torch.uint8 and ours.shape == images.shape and torch.equal(images, before)
    assert np.abs(ours.numpy() - np.clip(exact, 0, 255)).max() < 0.5 + 1e-3


def _check_blend(images: torch.Tensor, weight: float) -> None:
    before = images.clone()
    ours = blended_on_cpu(images, weight).numpy()
    exact = weight * images.numpy() + (1 - weight) * images.numpy()[::-1].astype(float)
    assert ours.dtype == np.uint8 and np.abs(ours - exact).max() <= 0.5 + 1e-4 and torch.equal(images, before)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(1, 13), st.integers(1, 40), st.integers(0, 99))
def test_every_shape(num: int, height: int, width: int, seed: int) -> None:
    images = _images((num, height, width), seed)
    _check_colors(images, seed)
    _check_blend(images, seed / 99)


@pytest.mark.parametrize("side", [128, 173])
def test_whole_photographs(side: int) -> None:
    _check_colors(_images((3, side, side)), side)
    _check_blend(_images((3, side, side)), 0.37)


def test_batches_that_are_views() -> None:
    turned = _images((4, 20, 24)).transpose(1, 2)
    _check_colors(turned, 1)
    _check_blend(turned[:, ::2], 0.8)
    _check_blend(_images((6, 8, 8)).flip(0)[1:], 0.2)


def test_the_ends_of_the_range_stay_there() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).repeat(24).view(2, 2, 4, 3)
    same = recolored_on_cpu(ends, torch.eye(3).expand(2, 3, 3), torch.zeros(2, 3))
    assert torch.equal(same, ends)
    far = recolored_on_cpu(ends, 1e6 * torch.eye(3).expand(2, 3, 3), torch.tensor([[-1e5] * 3, [1e5] * 3]))
    assert (far[0] == ends[0]).all() and (far[1] == 255).all()
    for weight in np.linspace(0, 1, 300):
        assert torch.equal(blended_on_cpu(ends[:1], weight), ends[:1])
