"""Apparent sizes: distribution against torchvision, our sampler and quadrature; the ideal case; monotonicity."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop, Resize

from fixres.pipelines.sampling.crops import center_boxes, training_boxes
from fixres.pipelines.spec import EvalCrop, InputError, TrainCrop
from fixres.resolution.apparent_size import (
    apparent_ratio,
    ideal_sigma,
    matching_test_res,
    mean_sigma,
    sigma_cdf,
    sizes_in_testing,
)

NUM = 40_000
CROPS = [
    TrainCrop(),
    TrainCrop(scale=(0.25, 1.0)),
    TrainCrop(scale=(0.35, 1.0), ratio=(0.5, 2.0)),
    TrainCrop(scale=(0.3, 0.3)),
    TrainCrop(ratio=(1.0, 1.0)),
    TrainCrop(scale=(0.05, 0.6), ratio=(0.9, 2.5)),
]
SIZES = [(400, 400), (375, 500), (500, 333), (90, 700), (32, 50), (33, 32)]


def drawn_sigma(crop: TrainCrop, size: tuple[int, int], num: int = NUM, seed: int = 1) -> np.ndarray:
    """Sigma of boxes that the pipeline draws."""
    boxes = training_boxes(crop, seed, 0, np.arange(num), np.tile(size, (num, 1)))
    return np.sqrt(boxes[:, 2] * boxes[:, 3] / (size[0] * size[1]))


def close(sample: np.ndarray, expected: float, tolerance: float = 0.002) -> bool:
    """Whether a mean is as expected within 4 standard errors and the effect of rounding to pixels."""
    return abs(sample.mean() - expected) < 4 * sample.std() / math.sqrt(len(sample)) + tolerance * expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", CROPS)
def test_means_against_drawn_boxes(crop: TrainCrop, size: tuple[int, int]) -> None:
    sigma = drawn_sigma(crop, size)
    for power in (1, 2, -1):
        assert close(sigma**power, mean_sigma(crop, [size], power)[0]), power


@pytest.mark.parametrize("size", [(400, 400), (375, 500), (60, 400)])
def test_means_against_torchvision(size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    crop, image = TrainCrop(), torch.empty(3, *size)
    boxes = [RandomResizedCrop.get_params(image, list(crop.scale), list(crop.ratio)) for _ in range(6000)]
    sigma = np.sqrt([h * w / (size[0] * size[1]) for _, _, h, w in boxes])
    for power in (1, 2, -1):
        assert close(sigma**power, mean_sigma(crop, [size], power)[0]), power


@pytest.mark.parametrize(("size", "area"), [((400, 400), 0.478), ((375, 500), 0.432)])
def test_rejection_makes_crops_smaller(size: tuple[int, int], area: float) -> None:
    """Measured with torchvision; the mean of the scale itself is 0.54."""
    assert mean_sigma(TrainCrop(), [size], power=2)[0] == pytest.approx(area, abs=0.0015)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", CROPS)
def test_distribution_against_drawn_boxes(crop: TrainCrop, size: tuple[int, int]) -> None:
    """Kolmogorov's distance at the level 1e-4, and the effect of rounding a box to pixels on sigma, on either side."""
    sigma, slack = np.sort(drawn_sigma(crop, size)), 1.2 / min(size)
    points = np.linspace(0.02, 1.02, 101)
    low, high = sigma_cdf(crop, [size], points - slack), sigma_cdf(crop, [size], points + slack)
    drawn = np.searchsorted(sigma, points, side="right") / NUM
    noise = 2.2253 / math.sqrt(NUM)
    assert (low - noise <= drawn).all() and (drawn <= high + noise).all()
    assert sigma_cdf(crop, [size], [0.0, 1.0]) == pytest.approx([0, 1])


def test_distribution_is_sharp_on_large_images() -> None:
    crop, size = TrainCrop(), (3000, 4000)
    points = np.linspace(0.2, 1, 81)
    drawn = np.searchsorted(np.sort(drawn_sigma(crop, size)), points, side="right") / NUM
    assert np.abs(sigma_cdf(crop, [size], points) - drawn).max() < 2.2253 / math.sqrt(NUM) + 1e-3


def test_the_distribution_of_many_images_is_the_mean_of_theirs() -> None:
    points, crop = np.linspace(0.1, 1, 10), TrainCrop()
    each = [sigma_cdf(crop, [size], points) for size in SIZES]
    assert sigma_cdf(crop, SIZES, points) == pytest.approx(np.mean(each, axis=0))


@given(
    height=st.integers(20, 3000),
    width=st.integers(20, 3000),
    low=st.floats(0.01, 1),
    span=st.floats(0, 1),
    ratio=st.floats(0.3, 3),
    wider=st.floats(1, 4),
)
def test_mean_equals_that_of_the_distribution(
    height: int, width: int, low: float, span: float, ratio: float, wider: float
) -> None:
    """E[sigma] = integral of 1 - F, by the trapezoid rule: both use different formulas."""
    crop = TrainCrop(scale=(low, low + span * (1 - low)), ratio=(ratio, ratio * wider))
    points = np.linspace(0, 1, 201)
    shares = sigma_cdf(crop, [(height, width)], points)
    assert (np.diff(shares) > -1e-7).all() and shares[0] == 0 and shares[-1] == pytest.approx(1)
    mean = mean_sigma(crop, [(height, width)])[0]
    # A jump of F, as of the fall-back, is known to one step of the rule only.
    assert mean == pytest.approx(np.trapezoid(1 - shares, points), abs=1 / 200)


def test_the_papers_ideal_case() -> None:
    """Equation 4 by hand: 2/3 (1 - 0.08^1.5) / (1 - 0.08) = 0.708241; times 256 / 224 the paper's 0.80."""
    assert ideal_sigma((0.08, 1.0)) == pytest.approx(0.708241, abs=1e-6)
    assert ideal_sigma((0.08, 1.0)) * 256 / 224 == pytest.approx(0.80, abs=0.01)
    assert ideal_sigma((0.25, 0.25)) == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [(0.08, 0.5), (0.2, 0.2), (0.01, 0.4)])
def test_the_distribution_is_the_papers_if_every_box_fits(scale: tuple[float, float]) -> None:
    assert mean_sigma(TrainCrop(scale=scale), [(700, 700)])[0] == pytest.approx(ideal_sigma(scale), rel=1e-4)
    assert mean_sigma(TrainCrop(scale=scale), [(700, 700)], power=2)[0] == pytest.approx(sum(scale) / 2, rel=1e-4)


def test_ideal_ratio_and_match_by_hand() -> None:
    """Square images and small crops, so that sigma is the ideal one; short side resized to exactly 8/7 of 224."""
    crop, sizes = TrainCrop(scale=(0.08, 0.5)), [(700, 700)]
    sigma = 2 / 3 * (0.5**1.5 - 0.08**1.5) / (0.5 - 0.08)
    ratio = apparent_ratio(crop, EvalCrop(0.875), sizes, 224, 224)
    assert ratio.mean == pytest.approx(sigma * 8 / 7) and ratio.standard_error == 0
    assert matching_test_res(crop, EvalCrop(0.875), sizes, 224) == pytest.approx(224 * 7 / 8 / sigma)


def test_without_random_scale_and_crop_the_match_is_the_training_resolution() -> None:
    crop, sizes = TrainCrop(scale=(1.0, 1.0), ratio=(1.0, 1.0)), [(300, 300), (640, 640)]
    assert mean_sigma(crop, sizes) == pytest.approx(1, rel=1e-4)
    assert matching_test_res(crop, EvalCrop(1.0), sizes, 160) == pytest.approx(160, rel=1e-4)
    assert apparent_ratio(crop, EvalCrop(1.0), sizes, 160, 160).mean == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(("test_res", "crop_pct"), [(224, 0.875), (160, 0.9), (97, 1.0), (64, 0.95)])
def test_sizes_in_testing_against_torchvision_and_the_pipeline(test_res: int, crop_pct: float) -> None:
    for height, width in SIZES:
        resized = Resize(math.floor(test_res / crop_pct))(Image.new("L", (width, height)))
        size = sizes_in_testing(EvalCrop(crop_pct), [(height, width)], test_res)[0]
        assert size == pytest.approx(math.sqrt(resized.width * resized.height))
        *_, h, w = center_boxes(EvalCrop(crop_pct), [(height, width)], test_res)[0]
        assert size == pytest.approx(test_res * math.sqrt(height * width / (h * w)))


@given(
    scale=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    sides=st.lists(st.tuples(st.integers(40, 900), st.integers(40, 900)), min_size=1, max_size=5),
    train_res=st.integers(32, 400),
)
@example(scale=(0.8203125, 0.875), sides=[(193, 314)], train_res=32)
def test_monotonicity(scale: tuple[float, float], sides: list[tuple[int, int]], train_res: int) -> None:
    crop, test = TrainCrop(scale=tuple(sorted(scale))), EvalCrop()
    at = [apparent_ratio(crop, test, sides, train_res, res).mean for res in (96, 128, 224, 320)]
    assert at == sorted(at) and at[0] < at[-1]
    match = matching_test_res(crop, test, sides, train_res)
    assert matching_test_res(crop, test, sides, 2 * train_res) == pytest.approx(2 * match)
    # The wider a crop is opened, the larger sigma, and the smaller the test resolution that matches. But for whole
    # pixels: of long images more tries fail then, and what torchvision falls back to may be a pixel narrower.
    wider, pixel = TrainCrop(scale=(crop.scale[0], 1.0)), 1 / min(map(min, sides))
    assert matching_test_res(wider, test, sides, train_res) <= match * (1 + pixel)
    res = int(np.clip(round(match), 8, 2048))
    # Rounding to pixels, of the resolution and of the resized sides, is all that keeps the ratio from 1.
    assert match > 2048 or match < 32 or abs(apparent_ratio(crop, test, sides, train_res, res).mean - 1) < 3 / res


def test_real_photographs_against_simulation(imagenet_samples: Path) -> None:
    """The issue's first condition: theory and Monte Carlo over real boxes agree within 1 %."""
    sizes = np.array([Image.open(path).size[::-1] for path in sorted(imagenet_samples.glob("*.JPEG"))])
    assert len(sizes) > 100
    index = np.tile(np.arange(len(sizes)), 100)
    boxes = training_boxes(TrainCrop(), 1, 0, np.arange(len(index)), sizes[index])
    tested = center_boxes(EvalCrop(), sizes, 224)
    # Side of a stored pixel in testing over that in training, for each box.
    in_training = 224 / np.sqrt(boxes[:, 2] * boxes[:, 3])
    in_testing = 224 / np.sqrt(tested[:, 2] * tested[:, 3])
    simulated = (in_testing[index] / in_training).mean()
    assert apparent_ratio(TrainCrop(), EvalCrop(), sizes, 224, 224).mean == pytest.approx(simulated, rel=0.003)


@pytest.mark.parametrize("size", [(400, 400), (375, 500), (333, 500)])
def test_the_documents_table(size: tuple[int, int]) -> None:
    area, sigma = (mean_sigma(TrainCrop(), [size], power)[0] for power in (2, 1))
    ratio = apparent_ratio(TrainCrop(), EvalCrop(), [size], 224, 224).mean
    match = matching_test_res(TrainCrop(), EvalCrop(), [size], 224)
    row = f"| {size[0]} x {size[1]} | {area:.3f} | {sigma:.3f} | {ratio:.3f} | {match:.0f} |"
    assert row in (Path(__file__).resolve().parents[3] / "docs" / "theory.md").read_text()


def test_standard_error_is_the_spread_over_samples() -> None:
    """300 samples of 50 from 400 images: their means vary by the standard error."""
    generator = np.random.default_rng(7)
    sizes = generator.integers(100, 900, (400, 2))
    whole = apparent_ratio(TrainCrop(), EvalCrop(), sizes, 224, 224, 400)
    assert whole.standard_error == 0
    parts = [
        apparent_ratio(TrainCrop(), EvalCrop(), generator.permutation(sizes)[:50], 224, 224, 400) for _ in range(300)
    ]
    means, errors = np.transpose(parts)
    assert means.std() == pytest.approx(errors.mean(), rel=0.15)
    assert abs(means.mean() - whole.mean) < 4 * errors.mean() / math.sqrt(300)


@pytest.mark.parametrize(
    ("sizes", "num_samples", "word"),
    [
        (np.zeros((0, 2)), None, "at least one image"),
        ([(3, 4, 5)], None, "at least one image"),
        ([(0, 10)], None, "at least 1 x 1"),
        ([(float("nan"), 10)], None, "at least 1 x 1"),
        ([(10, 10)], 7, "use more"),
    ],
)
def test_mistakes_are_named(sizes: object, num_samples: int | None, word: str) -> None:
    with pytest.raises(InputError, match=word):
        apparent_ratio(TrainCrop(), EvalCrop(), sizes, 224, 224, num_samples)
    with pytest.raises(InputError, match="resolution=3"):
        apparent_ratio(TrainCrop(), EvalCrop(), [(10, 10)], 3, 224)
