"""Colors of batches against NumPy, the standard library's YIQ and MXNet's published constants; their random numbers."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from fixres.augment.color import color_matrices, draw_factors, pca_shifts, recolored

LUMA = np.array([0.299, 0.587, 0.114])


def _images(num: int = 4, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (num, side, side, 3), dtype=torch.uint8, generator=generator)


def _by_pixel(image: np.ndarray, brightness: float, saturation: float, hue: float, shift: np.ndarray) -> np.ndarray:
    """One uint8 image, pixel by pixel, in the standard library's YIQ, before rounding."""
    turn = np.exp(1j * np.pi * (hue - 1))
    out = np.empty(image.shape)
    for place in np.ndindex(image.shape[:2]):
        y, i, q = _yiq(image[place] / 255)
        chroma = (i + 1j * q) * saturation * turn
        out[place] = 255 * brightness * _rgb(y, chroma) + shift
    return out


def _yiq(rgb: np.ndarray) -> tuple[float, float, float]:
    return colorsys.rgb_to_yiq(*rgb)


def _rgb(y: float, chroma: complex) -> np.ndarray:
    """colorsys cuts to [0, 1]; an eighth of the way from mid gray stays inside."""
    near = colorsys.yiq_to_rgb(0.5 + (y - 0.5) / 8, chroma.real / 8, chroma.imag / 8)
    return 0.5 + 8 * (np.array(near) - 0.5)


def test_recoloring_agrees_with_the_standard_library_pixel_by_pixel() -> None:
    images = _images()
    factors = np.array([[1, 1, 1], [1.4, 0.6, 1.0], [0.6, 1.4, 1.3], [0.9, 1.1, 0.6]])
    shifts = np.array([[0, 0, 0], [5, -3, 2], [0, 0, 0], [-9, 0, 4]], np.float32)
    matrices = torch.from_numpy(color_matrices(factors).astype(np.float32))
    ours = recolored(images, matrices, torch.from_numpy(shifts)).numpy()
    for k in range(4):
        exact = np.clip(_by_pixel(images[k].numpy(), *factors[k], shifts[k]), 0, 255)
        # It has luma's weights with two digits. Factors of the wrong kind, or a rotation the other way, differ by tens.
        assert np.abs(ours[k] - exact).max() < 3
        assert np.abs(ours[k] - exact).mean() < 0.6
    assert (ours[0] == images[0].numpy()).all()
    assert ours.dtype == np.uint8 and (ours == 255).any() and (ours == 0).any()


def test_recoloring_agrees_with_numpy() -> None:
    generator = np.random.default_rng(0)
    images, matrices, shifts = _images(), generator.normal(size=(4, 3, 3)), generator.normal(size=(4, 3)) * 20
    ours = recolored(images, torch.from_numpy(matrices).float(), torch.from_numpy(shifts).float()).numpy()
    exact = np.einsum("bij,bhwj->bhwi", matrices, images.numpy()) + shifts[:, None, None]
    assert np.abs(ours - np.clip(exact, 0, 255)).max() < 0.5 + 1e-3


def test_each_factor_does_its_own_thing() -> None:
    brightness, saturation, hue = color_matrices(np.array([[0.7, 1, 1], [1, 0, 1], [1, 1, 0.7]]))
    assert brightness == pytest.approx(0.7 * np.eye(3), abs=1e-12)
    assert saturation == pytest.approx(np.tile(LUMA, (3, 1)), abs=1e-3)
    assert LUMA @ hue == pytest.approx(LUMA, abs=1e-9)  # luma stays
    assert hue @ np.ones(3) == pytest.approx(np.ones(3), abs=1e-3)  # gray stays
    assert not np.allclose(hue, np.eye(3), atol=0.2)


def test_a_rotation_of_hue_and_its_inverse_cancel() -> None:
    there, back = color_matrices(np.array([[1, 1, 1.35], [1, 1, 0.65]]))
    assert there @ back == pytest.approx(np.eye(3), abs=1e-12)


def test_pca_noise_follows_the_principal_colors() -> None:
    first, second, _ = pca_shifts(np.eye(3))
    # MXNet and others have 55.46 and 4.794 for values in [0, 255].
    assert first == pytest.approx(55.46 * np.array([-0.5675, -0.5808, -0.5836]), rel=1e-3)
    assert second == pytest.approx(4.794 * np.array([0.7192, -0.0045, -0.6948]), rel=1e-3)


def test_factors_and_noise_have_the_law_of_the_paper() -> None:
    factors = draw_factors(0.4, 40_000, np.random.default_rng(3))
    assert factors.min() > 0.6 and factors.max() < 1.4
    assert factors.mean(0) == pytest.approx(np.ones(3), abs=0.005)
    assert factors.std(0) == pytest.approx(np.full(3, 0.8 / 12**0.5), rel=0.01)
