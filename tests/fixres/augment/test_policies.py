"""Drawn operations against the tables of timm and torchvision and their laws; large n, thresholds near 1e-4."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import timm.data.auto_augment as timm_operations
from scipy import stats
from torchvision.transforms.v2 import TrivialAugmentWide

from fixres.augment.operations import POSITION, Program
from fixres.augment.policies import TIMM_ARGUMENTS, WIDE_ARGUMENTS, _Draw, draw_program
from fixres.config.augment import AugmentConfig

_RAND = "rand-m6-mstd0.5-inc1"


def _program(num: int = 60_000, side: int = 100, seed: int = 0, **config: object) -> Program:
    return draw_program(AugmentConfig(**config), num, side, np.random.default_rng(seed))


def _check(observed: np.ndarray, probs: np.ndarray) -> None:
    assert stats.chisquare(observed, np.asarray(probs) * observed.sum()).pvalue > 1e-4


def _counts(operations: np.ndarray) -> np.ndarray:
    """How often nothing, the first operation, the second, ... was drawn."""
    return np.bincount(operations.ravel() + 1, minlength=len(POSITION) + 1)


@pytest.mark.parametrize("name", sorted(set(timm_operations.LEVEL_TO_ARG) - {"TranslateX", "TranslateY"}))
def test_arguments_of_a_magnitude_are_timms(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    levels, uniform = np.array([0, 0.3, 2.5, 4.999, 5, 6.6, 9.99, 10, 13]), np.full(9, 0.37)
    operation, argument = TIMM_ARGUMENTS[name]
    for sign in (-1.0, 1.0):
        monkeypatch.setattr(timm_operations, "_randomly_negate", lambda value, sign=sign: sign * value)
        ours = argument(_Draw(levels / 10, np.full(9, sign), uniform, 100))
        to_argument = timm_operations.LEVEL_TO_ARG[name]
        theirs = [(to_argument(level, {}) if to_argument else (0,))[0] for level in levels]
        if "Translate" in name:
            theirs = [share * 100 for share in theirs]  # of the image's side
        elif name == "Desaturate":
            theirs = [min(1, max(0, 1 - value)) for value in theirs]
        elif name == "GaussianBlurRand":
            theirs = [0.1 + 0.37 * (2 * value - 0.1) for value in theirs]  # random.uniform(0.1, 2 * value)
        assert ours == pytest.approx(theirs, abs=1e-12), (name, operation)


def test_rand_augment_draws_as_timm() -> None:
    program = _program(auto_augment=_RAND)
    assert program.operations.shape == (60_000, 2) and program.fill == (124, 116, 104)
    probs = np.zeros(len(POSITION) + 1)
    probs[0] = 0.5
    for name in timm_operations._RAND_INCREASING_TRANSFORMS:
        probs[1 + POSITION[TIMM_ARGUMENTS[name][0]]] = 0.5 / 15
    observed = _counts(program.operations)
    assert (observed[probs == 0] == 0).all()
    _check(observed[probs > 0], probs[probs > 0])
    _check(np.bincount(program.modes.ravel(), minlength=3)[1:], np.array([0.5, 0.5]))
    both = (program.operations >= 0).all(1)
    table = np.histogram2d(*program.operations[both].T, bins=len(POSITION))[0]
    used = table.any(0)
    assert stats.chi2_contingency(table[used][:, used]).pvalue > 1e-4  # with replacement, layers on their own
    for name, unit in {"Rotate": 3.0, "ShearY": 0.03, "TranslateX": 4.5}.items():
        argument = program.arguments[program.operations == POSITION[name]]
        _check(np.bincount((argument > 0).astype(int)), np.array([0.5, 0.5]))
        assert stats.kstest(np.abs(argument) / unit, stats.norm(6, 0.5).cdf).pvalue > 1e-4


def _rotations(words: str) -> np.ndarray:
    program = _program(auto_augment=words)
    return np.abs(program.arguments[program.operations == POSITION["Rotate"]]) / 3


def test_deviations_of_the_magnitude() -> None:
    assert _rotations("rand-m4-inc1") == pytest.approx(4)
    assert stats.kstest(_rotations("rand-m4-mstd101-inc1"), stats.uniform(0, 4).cdf).pvalue > 1e-4
    assert _rotations("rand-m9-mstd2-inc1").max() == 10
    above = _rotations("rand-m8-mstd3-mmax30-inc1")
    assert stats.kstest(above[above > 0], stats.truncnorm(-8 / 3, np.inf, 8, 3).cdf).pvalue > 1e-4


@pytest.mark.parametrize("words", ["rand-p1-t3aw-inc1", "rand-p1-tweights-inc1"])
def test_weighted_operations_are_drawn_without_replacement(words: str) -> None:
    program = _program(auto_augment=words)
    weights = timm_operations._RAND_WEIGHTED_3A if "3aw" in words else timm_operations._RAND_WEIGHTED_0
    own = np.array(list(weights.values())) / sum(weights.values())
    second = np.array([sum(own[i] * own[j] / (1 - own[i]) for i in range(len(own)) if i != j) for j in range(len(own))])
    positions = [POSITION[TIMM_ARGUMENTS[name][0]] for name in weights]  # two of timm's names may be one operation
    for column, probs in zip(program.operations.T, (own, second), strict=True):
        expected = np.bincount(positions, probs, minlength=len(POSITION))
        observed = np.bincount(column, minlength=len(POSITION))
        _check(observed[expected > 0], expected[expected > 0])
    assert (program.operations == POSITION["Rotate"]).sum(1).max() == 1


@pytest.mark.parametrize("words", ["original", "originalr", "v0", "v0r", "3a", "original-mstd0.5"])
def test_auto_augment_draws_one_of_the_sets(words: str) -> None:
    program = _program(auto_augment=words)
    probs: dict[tuple[int, ...], float] = {}
    sets = timm_operations.auto_augment_transform(words, {}).policy
    for each in sets:
        for happens in itertools.product([0, 1], repeat=len(each)):
            done = [POSITION[TIMM_ARGUMENTS[op.name][0]] if h else -1 for op, h in zip(each, happens, strict=True)]
            prob = np.prod([op.prob if h else 1 - op.prob for op, h in zip(each, happens, strict=True)])
            key = tuple(done)
            probs[key] = probs.get(key, 0) + prob / len(sets)
    observed = {key: 0 for key in probs if probs[key] > 0}
    rows, counts = np.unique(program.operations, axis=0, return_counts=True)
    observed |= {tuple(row.tolist()): count for row, count in zip(rows, counts, strict=True)}
    _check(np.array(list(observed.values())), np.array([probs[key] for key in observed]))


def test_3_augment_is_that_of_deit_iii() -> None:
    program = _program(auto_augment="3a")
    arguments = {name: program.arguments[program.operations == POSITION[name]] for name in POSITION}
    assert set(arguments["Solarize"]) == {128} and set(arguments["Color"]) == {0}
    assert stats.kstest(arguments["GaussianBlur"], stats.uniform(0.1, 1.9).cdf).pvalue > 1e-4


def test_trivial_augment_draws_as_torchvision() -> None:
    program, space = _program(120_000, auto_augment="ta_wide"), TrivialAugmentWide._AUGMENTATION_SPACE
    assert program.fill == (0, 0, 0) and (program.modes == 1).all() and set(space) == set(WIDE_ARGUMENTS)
    probs = [1 / 14 if name in space else 0 for name in ["Identity", *POSITION]]
    observed, probs = _counts(program.operations), np.array(probs)
    _check(observed[probs > 0], probs[probs > 0])
    assert (observed[probs == 0] == 0).all()
    for name, (magnitudes, signed) in space.items():
        values = magnitudes(31, 100, 100)
        if values is None:
            continue
        expected = np.array([sign * float(value) for value in values for sign in ((-1, 1) if signed else (1,))])
        if name in ("Brightness", "Color", "Contrast", "Sharpness"):
            expected = 1 + expected
        elif name == "Solarize":
            expected = 255 * expected
        elif "Translate" in name:
            expected = np.trunc(expected)
        drawn, counts = np.unique(program.arguments[program.operations == POSITION[name]] + 0.0, return_counts=True)
        wanted, weights = np.unique(expected + 0.0, return_counts=True)
        assert drawn == pytest.approx(wanted, abs=1e-12), name
        if name == "Solarize":
            assert (drawn == wanted).all()  # a threshold on a whole value is not one just above
        _check(counts, weights / weights.sum())


def test_color_jitter_is_torchvisions() -> None:
    program = _program(color_jitter=0.3)
    rows, counts = np.unique(program.operations, axis=0, return_counts=True)
    assert sorted(rows[0]) == sorted(POSITION[name] for name in ("Brightness", "Contrast", "Color"))
    _check(counts, np.full(6, 1 / 6))
    assert stats.kstest(program.arguments.ravel(), stats.uniform(0.7, 0.6).cdf).pvalue > 1e-4


def test_gray_blurred_and_solarized_images() -> None:
    program = _program(grayscale_prob=0.2, gaussian_blur_prob=0.5, solarize_prob=0.1)
    for column, (name, prob) in enumerate({"Color": 0.2, "GaussianBlur": 0.5, "Solarize": 0.1}.items()):
        there = program.operations[:, column] == POSITION[name]
        assert (program.operations[~there, column] == -1).all()
        assert stats.binomtest(int(there.sum()), len(there), prob).pvalue > 1e-4
    gray, radius, threshold = program.arguments.T
    assert (gray == 0).all() and (threshold == 128).all()
    assert stats.kstest(radius, stats.uniform(0.1, 1.9).cdf).pvalue > 1e-4


@pytest.mark.parametrize(
    ("given", "modes"), [("nearest", {0}), ("bilinear", {1}), ("bicubic", {2}), ("random", {1, 2})]
)
def test_interpolation(given: str, modes: set[int]) -> None:
    for words in (_RAND, "ta_wide"):
        assert set(_program(200, auto_augment=words, interpolation=given).modes.ravel()) == modes


def test_draws_are_pinned() -> None:
    """Other draws make other trainings."""
    names = {-1: None, **{position: name for name, position in POSITION.items()}}
    rand, wide = _program(3, seed=7, auto_augment=_RAND), _program(3, seed=7, auto_augment="ta_wide")
    assert [[names[k] for k in row] for row in rand.operations.tolist()] == [
        [None, None], [None, "TranslateX"], ["Contrast", "ShearX"]
    ]  # fmt: skip
    assert rand.arguments[1:].ravel() == pytest.approx([1.4954, 27.1353, 1.6003, -0.1726], abs=1e-4)
    assert [names[k] for k in wide.operations[:, 0].tolist()] == ["AutoContrast", "Contrast", "Posterize"]
    assert wide.arguments.ravel() == pytest.approx([0, 0.373, 4])
