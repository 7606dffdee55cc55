"""Pieces of a batch against NumPy on the whole of it, at sizes that no piece divides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fixres import in_cache
from fixres.in_cache import blended_in_cache, recoloured_in_cache


def _images(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def _check_colours(images: torch.Tensor, seed: int) -> None:
    random = np.random.default_rng(seed)
    matrices, shifts = random.normal(size=(len(images), 3, 3)), 30 * random.normal(size=(len(images), 3))
    before = images.clone()
    ours = recoloured_in_cache(images, torch.from_numpy(matrices).float(), torch.from_numpy(shifts).float())
    exact = np.einsum("bij,bhwj->bhwi", matrices, images.numpy()) + shifts[:, None, None]
    assert ours.dtype == torch.uint8 and ours.shape == images.shape and torch.equal(images, before)
    assert np.abs(ours.numpy() - np.clip(exact, 0, 255)).max() < 0.5 + 1e-3


def _check_blend(images: torch.Tensor, weight: float) -> None:
    before = images.clone()
    ours = blended_in_cache(images, weight).numpy()
    exact = weight * images.numpy() + (1 - weight) * images.numpy()[::-1].astype(float)
    assert ours.dtype == np.uint8 and np.abs(ours - exact).max() <= 0.5 + 1e-4 and torch.equal(images, before)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 13), st.integers(1, 13), st.integers(12, 60), st.integers(0, 99))
def test_every_shape_and_piece(num: int, height: int, width: int, half_piece: int, seed: int) -> None:
    whole, in_cache._PIECE = in_cache._PIECE, 2 * half_piece
    try:
        _check_colours(_images((num, height, width), seed), seed)
        _check_blend(_images((num, height, width), seed), seed / 99)
    finally:
        in_cache._PIECE = whole


@pytest.mark.parametrize("side", [91, 96, 160, 173])
def test_images_larger_than_a_piece(side: int) -> None:
    _check_colours(_images((3, side, side)), side)
    _check_blend(_images((3, side, side)), 0.37)


def test_batches_that_are_views() -> None:
    turned = _images((4, 20, 24)).transpose(1, 2)
    _check_colours(turned, 1)
    _check_blend(turned[:, ::2], 0.8)
    _check_blend(_images((6, 8, 8)).flip(0)[1:], 0.2)
