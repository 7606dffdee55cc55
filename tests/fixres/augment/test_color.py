"""Colors of batches against NumPy, the standard library's YIQ and MXNet's published constants; their random numbers."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch

from fixres.augment.color import BatchTransform, color_matrices, draw_factors, pca_shifts, recolored
from fixres.config.augment import AugmentConfig
from fixres.pipelines.spec import InputError

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


def test_the_noise_of_a_batch_has_the_given_deviation() -> None:
    """Mid gray images show the shift itself; its covariance is V diag(0.1 * values)^2 V', plus that of rounding."""
    gray = torch.full((20_000, 1, 1, 3), 128, dtype=torch.uint8)
    images, _ = BatchTransform(AugmentConfig(pca=0.1), 2, 0)(gray, torch.zeros(20_000, dtype=torch.int64), 0)
    shifts = pca_shifts(0.1 * np.eye(3))
    expected = shifts.T @ shifts + np.eye(3) / 12
    assert np.cov(images.view(-1, 3).numpy().T.astype(float)) == pytest.approx(expected, rel=0.05)


def _batch(seed: int, epoch: int, step: int, **config: float) -> torch.Tensor:
    transform = BatchTransform(AugmentConfig(**config), 5, seed)
    transform.set_epoch(epoch)
    return transform(_images(), torch.arange(4), step)[0]


@pytest.mark.parametrize("config", [{"color": 0.4}, {"pca": 0.1}, {"mixup": 0.2}, {"cutmix": 1.0}])
def test_random_numbers_are_functions_of_seed_epoch_and_step(config: dict[str, float]) -> None:
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
    transform = BatchTransform(AugmentConfig(color=0.4, pca=0.1), 8, 7)
    whole = transform(images, labels, 5)[0]
    assert len({image.numpy().tobytes() for image in whole}) == 8
    monkeypatch.setattr("fixres.augment.color.num_processes", lambda: number)
    parts = []
    for rank, part in enumerate(images.chunk(number)):
        monkeypatch.setattr("fixres.augment.color.rank", lambda rank=rank: rank)
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
@pytest.mark.parametrize("config", [{"color": 0.4, "pca": 0.1}, {"mixup": 0.2}, {"cutmix": 1.0}])
def test_a_gpu_makes_the_same_batches(config: dict[str, float]) -> None:
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
    ],
)
def test_impossible_settings_are_refused(config: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AugmentConfig(**config)
