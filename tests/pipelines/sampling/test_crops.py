"""Crop boxes against torchvision: the same distribution in training, the same pixels in testing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fixres.pipelines.loaders.pillow import eval_crop, train_crop
from fixres.pipelines.sampling.crops import center_boxes, crop_boxes, shifted_boxes, training_boxes
from fixres.pipelines.spec import EvalCrop, ShiftCrop, TrainCrop
from tests.coded import coded_image
from tests.kolmogorov import is_uniform, same_law

NUM = 12_000


def ours(crop: TrainCrop, size: tuple[int, int], num: int = NUM, seed: int = 1) -> np.ndarray:
    return training_boxes(crop, seed, 0, np.arange(num), np.tile(size, (num, 1)))


def torchvisions(crop: TrainCrop, size: tuple[int, int], num: int = NUM) -> np.ndarray:
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(2)
    image = torch.empty(3, *size)
    draw = RandomResizedCrop.get_params
    return np.array([draw(image, list(crop.scale), list(crop.ratio)) for _ in range(num)])


@pytest.mark.parametrize(
    ("crop", "size"),
    [
        (TrainCrop(), (375, 500)),
        (TrainCrop(), (400, 400)),
        (TrainCrop(), (500, 333)),
        (TrainCrop(), (90, 700)),
        (TrainCrop(scale=(0.35, 1.0), ratio=(0.5, 2.0)), (300, 450)),
        (TrainCrop(scale=(0.25, 0.25)), (200, 300)),
    ],
)
def test_same_distribution_as_torchvision(crop: TrainCrop, size: tuple[int, int]) -> None:
    """Kolmogorov-Smirnov on two samples, level 1e-4, for area, aspect and both positions."""
    num = NUM // 5 if max(size) > 5 * min(size) else NUM  # torchvision tries in vain ten times on a strip
    mine, theirs = ours(crop, size, num), torchvisions(crop, size, num)
    for name, law in LAWS.items():
        assert same_law(law(mine, size), law(theirs, size)), name


LAWS = {
    "area": lambda b, size: b[:, 2] * b[:, 3] / (size[0] * size[1]),
    "aspect": lambda b, _: b[:, 3] / b[:, 2],
    "y": lambda b, size: b[:, 0] / size[0],
    "x": lambda b, size: b[:, 1] / size[1],
    "center": lambda b, size: (b[:, 1] + b[:, 3] / 2) / size[1],
}


@pytest.mark.parametrize(("size", "mean"), [((400, 400), 0.478), ((375, 500), 0.432)])
def test_rejection_biases_the_area(size: tuple[int, int], mean: float) -> None:
    """Standard error of the mean is 0.0021 here; 4 of them are allowed."""
    assert abs(LAWS["area"](ours(TrainCrop(), size), size).mean() - mean) < 0.009


def test_small_crops_of_squares_follow_the_analytic_law() -> None:
    """Nothing is rejected at scale up to 0.5 and ratio within (3/4, 4/3): area uniform, log aspect uniform."""
    drawn = ours(TrainCrop(scale=(0.08, 0.5)), (4000, 4000))
    area, aspect = LAWS["area"](drawn, (4000, 4000)), np.log(LAWS["aspect"](drawn, (4000, 4000)))
    assert is_uniform(area, 0.08, 0.5)
    assert is_uniform(aspect, np.log(3 / 4), np.log(4 / 3))
    room = 4001 - drawn[:, 2]
    assert is_uniform((drawn[:, 0] + 0.5) / room)


@given(
    height=st.integers(1, 900),
    width=st.integers(1, 900),
    low=st.floats(0.01, 1),
    seed=st.integers(0, 2**64 - 1),
    epoch=st.integers(0, 2**32 - 1),
)
def test_boxes_lie_within_the_image(height: int, width: int, low: float, seed: int, epoch: int) -> None:
    y, x, h, w = training_boxes(
        TrainCrop(scale=(low, 1)), seed, epoch, np.arange(20), np.tile([height, width], (20, 1))
    ).T
    assert (y >= 0).all() and (x >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (y + h <= height).all() and (x + w <= width).all()


@pytest.mark.parametrize("size", [(100, 900), (900, 100), (10, 300)])
def test_the_fallback_is_torchvisions(size: tuple[int, int]) -> None:
    """At scale (1, 1) no box of the allowed ratio fits into a strip, so the centered fall-back is certain."""
    crop = TrainCrop(scale=(1, 1))
    assert (ours(crop, size, 5) == torchvisions(crop, size, 5)).all()


def test_a_box_depends_on_seed_epoch_and_index_only() -> None:
    sizes = np.random.default_rng(0).integers(50, 600, (64, 2))
    whole = crop_boxes(TrainCrop(), 4, 9, np.arange(64), sizes, 128)
    some = np.array([50, 3, 17])
    part = crop_boxes(TrainCrop(), 4, 9, some, sizes[some], 224)
    assert (part.yxhw == whole.yxhw[some]).all() and (part.flip == whole.flip[some]).all()
    for other in (
        crop_boxes(TrainCrop(), 5, 9, np.arange(64), sizes, 128),
        crop_boxes(TrainCrop(), 4, 8, np.arange(64), sizes, 128),
    ):
        assert (other.yxhw != whole.yxhw).any(axis=1).mean() > 0.9 and (other.flip != whole.flip).any()


def test_boxes_are_pinned() -> None:
    """These literals may change only with a note in the change log: they change every seeded run."""
    drawn = crop_boxes(TrainCrop(), 0, 0, np.arange(4), np.tile([375, 500], (4, 1)), 128)
    assert drawn.yxhw.tolist() == [[32, 180, 231, 257], [90, 70, 236, 292], [74, 269, 160, 160], [16, 41, 351, 392]]
    assert drawn.flip.tolist() == [True, False, False, True]


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("crop", [TrainCrop, EvalCrop, ShiftCrop])
def test_flip_rate(crop: type, rate: float) -> None:
    flips = crop_boxes(crop(hflip=rate), 3, 1, np.arange(40_000), np.full((40_000, 2), 64), 32).flip
    assert abs(flips.mean() - rate) <= 4 * np.sqrt(rate * (1 - rate) / 40_000)


def test_flips_do_not_depend_on_boxes() -> None:
    drawn = crop_boxes(TrainCrop(), 3, 1, np.arange(NUM), np.tile([375, 500], (NUM, 1)), 32)
    assert abs(np.corrcoef(drawn.flip, drawn.yxhw[:, 2] * drawn.yxhw[:, 3])[0, 1]) < 4 / np.sqrt(NUM)


@pytest.mark.parametrize("crop_pct", [0.875, 1.0, 0.95, 0.5])
@pytest.mark.parametrize("size", [(375, 500), (500, 375), (333, 333), (101, 640), (97, 61), (640, 479)])
@pytest.mark.parametrize("resolution", [33, 96, 128, 224])
def test_center_crop_is_resize_and_center_crop(size: tuple[int, int], resolution: int, crop_pct: float) -> None:
    """Within 1 level of torchvision: Pillow rounds between its passes, and the box moves that by float error."""
    from PIL import Image
    from torchvision.transforms import CenterCrop, Compose, Resize

    noise = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    image = (noise // 4 + coded_image(*size) // 2).astype(np.uint8)
    short = int(np.floor(resolution / crop_pct))
    wanted = np.asarray(Compose([Resize(short), CenterCrop(resolution)])(Image.fromarray(image)))
    box = center_boxes(EvalCrop(crop_pct=crop_pct), np.array([size]), resolution)[0]
    assert np.abs(eval_crop(image, box, resolution).astype(int) - wanted).max() <= 1


def test_training_crop_is_resized_crop() -> None:
    from PIL import Image
    from torchvision.transforms.functional import resized_crop

    image = np.random.default_rng(1).integers(0, 256, (150, 200, 3), np.uint8)
    for box in ([10, 20, 80, 100], [0, 0, 150, 200], [149, 199, 1, 1], [3, 5, 30, 20]):
        wanted = np.asarray(resized_crop(Image.fromarray(image), *box, [64, 64]))
        assert (train_crop(image, np.array(box), 64) == wanted).all()


def shifts(crop: ShiftCrop, size: tuple[int, int], resolution: int, num: int = NUM) -> tuple[np.ndarray, int]:
    """Left edges in pixels of the resized image, and the number of pixels outside the crop."""
    found = shifted_boxes(crop, 5, 2, np.arange(num), np.tile(size, (num, 1)), resolution)
    centered = center_boxes(EvalCrop(crop.crop_pct), np.array([size]), resolution)[0]
    assert (found[:, [0, 2, 3]] == centered[[0, 2, 3]]).all()  # only x differs
    per_x = centered[3] / resolution
    left = found[:, 1] / per_x
    assert left == pytest.approx(np.rint(left), abs=1e-6)
    return np.rint(left).astype(int), round(size[1] / per_x) - resolution


@pytest.mark.parametrize("crop_pct", [0.875, 0.6])
@pytest.mark.parametrize("size", [(375, 500), (500, 375), (300, 300), (101, 640), (64, 64)])
def test_shifts_have_the_law_of_fixres(size: tuple[int, int], crop_pct: float) -> None:
    """Drawn as its code does, by Python: a distance up to the center's from the edge, then a sign."""
    import random

    mine, spare = shifts(ShiftCrop(crop_pct), size, 64)
    draw, center = random.Random(1), round(spare / 2)
    theirs = [min(center + draw.randrange(center + 1) * draw.choice((-1, 1)), spare) for _ in range(NUM)]
    assert mine.min() >= 0 and mine.max() <= spare
    assert same_law(mine.astype(float), np.array(theirs, float))
    if spare >= 3:  # every place is reached, and no two epochs are alike
        assert set(mine.tolist()) == set(theirs)
        other = shifted_boxes(ShiftCrop(crop_pct), 5, 3, np.arange(NUM), np.tile(size, (NUM, 1)), 64)
        again = shifted_boxes(ShiftCrop(crop_pct), 5, 2, np.arange(NUM), np.tile(size, (NUM, 1)), 64)
        assert (other[:, 1] != again[:, 1]).mean() > 0.5


@pytest.mark.parametrize("size", [(375, 500), (480, 320), (97, 61)])
def test_shifted_crop_is_resize_and_crop(size: tuple[int, int]) -> None:
    """torchvision's resize, cut at the same whole pixels."""
    from PIL import Image
    from torchvision.transforms import Resize

    image = coded_image(*size)
    crop, resolution = ShiftCrop(0.7), 96
    resized = np.asarray(Resize(int(resolution / 0.7))(Image.fromarray(image)))
    lefts, _ = shifts(crop, size, resolution, 20)
    found = shifted_boxes(crop, 5, 2, np.arange(20), np.tile(size, (20, 1)), resolution)
    top = round((resized.shape[0] - resolution) / 2)
    for box, left in zip(found, lefts, strict=True):
        wanted = resized[top : top + resolution, left : left + resolution]
        assert np.abs(eval_crop(image, box, resolution).astype(int) - wanted).max() <= 1


def test_shifts_depend_on_neither_flips_nor_neighbors() -> None:
    sizes = np.tile([100, 300], (NUM, 1))
    drawn = crop_boxes(ShiftCrop(), 3, 1, np.arange(NUM), sizes, 64)
    assert abs(np.corrcoef(drawn.flip, drawn.yxhw[:, 1])[0, 1]) < 4 / np.sqrt(NUM)
    some = np.array([50, 3, 17])
    assert (crop_boxes(ShiftCrop(), 3, 1, some, sizes[some], 64).yxhw == drawn.yxhw[some]).all()


def test_shifts_are_pinned() -> None:
    """These literals may change only with a note in the change log: they change every seeded run."""
    drawn = crop_boxes(ShiftCrop(), 0, 0, np.arange(4), np.tile([128, 256], (4, 1)), 112)
    assert drawn.yxhw[:, 1].tolist() == [43, 32, 110, 117]


def test_random_filters_are_a_pure_function_of_seed_epoch_and_index() -> None:
    crop, index, sizes = TrainCrop(interpolation="random"), np.arange(4000), np.full((4000, 2), 100)
    drawn = crop_boxes(crop, 1, 2, index, sizes, 64)
    part = crop_boxes(crop, 1, 2, index[100:110], sizes[:10], 64)
    assert np.array_equal(part.bicubic, drawn.bicubic[100:110]) and part.bicubic.dtype == bool
    assert abs(drawn.bicubic.mean() - 0.5) < 0.03  # 4 standard deviations
    assert abs(np.corrcoef(drawn.bicubic, drawn.flip)[0, 1]) < 0.06
    for seed, epoch in ((2, 2), (1, 3)):
        assert 0.45 < (crop_boxes(crop, seed, epoch, index, sizes, 64).bicubic != drawn.bicubic).mean() < 0.55
    for interpolation in ("bilinear", "bicubic"):
        chosen = crop_boxes(EvalCrop(interpolation=interpolation), 1, 2, index, sizes, 64).bicubic
        assert (chosen == (interpolation == "bicubic")).all()
    boxes = crop_boxes(TrainCrop(), 1, 2, index, sizes, 64)
    assert np.array_equal(boxes.yxhw, drawn.yxhw) and np.array_equal(boxes.flip, drawn.flip)
