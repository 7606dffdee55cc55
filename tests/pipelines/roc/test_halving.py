"""Halving, compared with Pillow's Lanczos filter."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fixres.pipelines.roc.halving import halve


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_even_sides_match_pillow(rows: int, columns: int, seed: int) -> None:
    """Away from the borders: Pillow leaves weights out there, `halve` repeats pixels."""
    image = np.random.default_rng(seed).integers(90, 166, (2 * rows, 2 * columns, 3), np.uint8)
    theirs = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.LANCZOS))
    ours = halve(image)
    assert ours.shape == theirs.shape
    difference = np.abs(ours.astype(int) - theirs)[3:-3, 3:-3]
    assert difference.size == 0 or difference.max() <= 2  # Pillow rounds and clips between its two passes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 61), st.integers(1, 61), st.integers(0, 99))
def test_border_pixels_are_repeated(height: int, width: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(90, 166, (height, width, 3), np.uint8)
    far = 12
    larger = np.pad(image, ((far, far + height % 2), (far, far + width % 2), (0, 0)), mode="edge")
    size = (larger.shape[1] // 2, larger.shape[0] // 2)
    theirs = np.asarray(Image.fromarray(larger).resize(size, Image.Resampling.LANCZOS)).astype(int)
    ours = halve(image)
    assert ours.shape == ((height + 1) // 2, (width + 1) // 2, 3)
    inside = theirs[far // 2 : far // 2 + ours.shape[0], far // 2 : far // 2 + ours.shape[1]]
    assert np.abs(ours.astype(int) - inside).max() <= 2
    assert abs(float((ours.astype(int) - inside).mean())) <= 0.2 or ours.size < 300


def test_halving_twice_shifts_nothing() -> None:
    """An edge at a multiple of four pixels keeps its position."""
    image = np.zeros((64, 37, 3), np.uint8)
    image[32:] = 200
    quarter = halve(halve(image)).astype(int)
    assert quarter.shape == (16, 10, 3)
    assert quarter[:7].max() <= 12 and quarter[9:].min() >= 188
    assert abs(int(quarter[7, 5, 0]) + int(quarter[8, 5, 0]) - 200) <= 2
