"""Which operations each image of a batch gets: timm's RandAugment and AutoAugment, TrivialAugmentWide, and others.

timm reads its own words (`rand-m6-mstd0.5-inc1`, `original`, `3a`); the numbers for a batch are drawn here, at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from fixres.augment.operations import POSITION, Program
from fixres.augment.tensor_operations import BICUBIC, BILINEAR, NEAREST
from fixres.config.augment import AugmentConfig
from fixres.pipelines.spec import IMAGENET_MEAN

_MODES = {"nearest": (NEAREST,), "bilinear": (BILINEAR,), "bicubic": (BICUBIC,), "random": (BILINEAR, BICUBIC)}
_TIMM_FILL = tuple(round(255 * mean) for mean in IMAGENET_MEAN)  # as timm.data.create_transform
_LEVELS = 10  # timm's magnitudes are in [0, 10]


class _Draw(NamedTuple):
    """Of images with the same operation, float64 (N,) each: magnitude in [0, 1] or above, sign, uniform in [0, 1)."""

    level: np.ndarray
    sign: np.ndarray
    uniform: np.ndarray
    side: int


def _enhance(draw: _Draw) -> np.ndarray:
    return draw.level * 1.8 + 0.1


def _enhance_increasing(draw: _Draw) -> np.ndarray:
    return np.maximum(0.1, 1 + draw.sign * draw.level * 0.9)


def _solarize(draw: _Draw) -> np.ndarray:
    return np.minimum(256, np.floor(draw.level * 256))


def _translate(draw: _Draw) -> np.ndarray:
    return draw.sign * draw.level * 0.45 * draw.side


def _nothing(draw: _Draw) -> np.ndarray:
    return np.zeros_like(draw.level)


TIMM_ARGUMENTS: dict[str, tuple[str, Callable[[_Draw], np.ndarray]]] = {
    "AutoContrast": ("AutoContrast", _nothing),
    "Equalize": ("Equalize", _nothing),
    "Invert": ("Invert", _nothing),
    "Rotate": ("Rotate", lambda draw: draw.sign * draw.level * 30),
    "Posterize": ("Posterize", lambda draw: np.floor(draw.level * 4)),
    "PosterizeIncreasing": ("Posterize", lambda draw: 4 - np.floor(draw.level * 4)),
    "PosterizeOriginal": ("Posterize", lambda draw: 4 + np.floor(draw.level * 4)),
    "Solarize": ("Solarize", _solarize),
    "SolarizeIncreasing": ("Solarize", lambda draw: 256 - _solarize(draw)),
    "SolarizeAdd": ("SolarizeAdd", lambda draw: np.minimum(128, np.floor(draw.level * 110))),
    **{name: (name, _enhance) for name in ("Color", "Contrast", "Brightness", "Sharpness")},
    **{f"{name}Increasing": (name, _enhance_increasing) for name in ("Color", "Contrast", "Brightness", "Sharpness")},
    "ShearX": ("ShearX", lambda draw: draw.sign * draw.level * 0.3),
    "ShearY": ("ShearY", lambda draw: draw.sign * draw.level * 0.3),
    "TranslateXRel": ("TranslateX", _translate),
    "TranslateYRel": ("TranslateY", _translate),
    "Desaturate": ("Color", lambda draw: 0.5 - 0.5 * np.minimum(1, draw.level)),
    "GaussianBlur": ("GaussianBlur", lambda draw: 0.1 + 1.9 * np.minimum(1, draw.level)),
    "GaussianBlurRand": ("GaussianBlur", lambda draw: 0.1 + (2 * np.minimum(1, draw.level) - 0.1) * draw.uniform),
}
"""Of `timm.data.auto_augment`'s names: operation, and its argument (timm's LEVEL_TO_ARG) for a whole batch."""

_Wide = tuple[float, float, Callable[[np.ndarray, np.ndarray], np.ndarray]]
_ONLY_MAGNITUDE: _Wide = (0, 0, lambda magnitude, _: magnitude)
_SHEAR: _Wide = (0, 0.99, lambda magnitude, sign: sign * magnitude)
_SHIFT: _Wide = (0, 32, lambda magnitude, sign: sign * np.floor(magnitude))
_FACTOR: _Wide = (0, 0.99, lambda magnitude, sign: 1 + sign * magnitude)

WIDE_ARGUMENTS: dict[str, _Wide] = {
    "Identity": _ONLY_MAGNITUDE,
    "ShearX": _SHEAR,
    "ShearY": _SHEAR,
    "TranslateX": _SHIFT,
    "TranslateY": _SHIFT,
    "Rotate": (0, 135, lambda magnitude, sign: sign * magnitude),
    "Brightness": _FACTOR,
    "Color": _FACTOR,
    "Contrast": _FACTOR,
    "Sharpness": _FACTOR,
    "Posterize": (0, 6, lambda magnitude, _: 8 - np.round(magnitude)),
    "Solarize": (1, 0, lambda magnitude, _: 255 * magnitude),
    "AutoContrast": _ONLY_MAGNITUDE,
    "Equalize": _ONLY_MAGNITUDE,
}
"""Of torchvision's TrivialAugmentWide: first and last of 31 magnitudes, and the argument from magnitude and sign."""


def draw_program(config: AugmentConfig, num_images: int, side: int, rng: np.random.Generator) -> Program:
    """What `config` does to each of `num_images` square images of `side` pixels, in this order:
    auto_augment, color_jitter, grayscale, Gaussian blur, solarize.
    """
    layers = [np.empty((3, num_images, 0))]
    fill = (0, 0, 0)
    if config.auto_augment == "ta_wide":
        layers.append(_draw_wide(num_images, _MODES[config.interpolation or "bilinear"], rng))
    elif config.auto_augment is not None:
        layers.append(_draw_timm(config.auto_augment, num_images, side, _MODES[config.interpolation or "random"], rng))
        fill = _TIMM_FILL
    if config.color_jitter:
        layers.append(_draw_jitter(config.color_jitter, num_images, rng))
    for name, prob, low, high in (
        ("Color", config.grayscale_prob, 0, 0),
        ("GaussianBlur", config.gaussian_blur_prob, 0.1, 2),
        ("Solarize", config.solarize_prob, 128, 128),
    ):
        if prob:
            argument = low + (high - low) * rng.random(num_images)
            layers.append(
                _layers(np.where(rng.random(num_images) < prob, POSITION[name], -1)[:, None], argument[:, None])
            )
    operations, arguments, modes = np.concatenate(layers, axis=2)
    return Program(operations.astype(np.int64), arguments, modes.astype(np.int64), fill)


def _layers(operations: np.ndarray, arguments: np.ndarray, modes: np.ndarray | int = 0) -> np.ndarray:
    """float64 (3, B, L), as in `Program`."""
    return np.stack([operations, arguments, np.broadcast_to(modes, operations.shape)])


def _signs(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.random(shape) < 0.5, -1.0, 1.0)


def _draw_jitter(amount: float, num_images: int, rng: np.random.Generator) -> np.ndarray:
    """torchvision's ColorJitter(amount, amount, amount): three factors, applied in random order."""
    names = [POSITION[name] for name in ("Brightness", "Contrast", "Color")]
    order = rng.permuted(np.tile(names, (num_images, 1)), axis=1)
    return _layers(order, rng.uniform(max(0, 1 - amount), 1 + amount, order.shape))


def _draw_wide(num_images: int, modes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """One of 14 operations with one of 31 magnitudes, all equally likely (arXiv 2103.10158)."""
    shape, steps = (num_images, 1), rng.integers(0, 31, (num_images, 1))
    chosen, sign = rng.integers(0, len(WIDE_ARGUMENTS), shape), _signs(shape, rng)
    # In float32, as in torchvision: a threshold may lie just above a whole value or on it.
    arguments = [
        argument(torch.linspace(first, last, 31).double().numpy()[steps], sign)
        for first, last, argument in WIDE_ARGUMENTS.values()
    ]
    positions = np.array([POSITION.get(name, -1) for name in WIDE_ARGUMENTS])
    return _layers(positions[chosen], np.choose(chosen, arguments), rng.choice(modes, shape))


class _Policy(NamedTuple):
    """timm's operations, each (K,): position, argument, probability, magnitude, its deviation and upper bound.

    `rows`: int64 (S, L), sets of operations, of which each image gets one; -1 where a set has fewer than L. If
    None, each image gets `num_ops` of the operations: with `weights` different ones, else with replacement.
    """

    positions: np.ndarray
    arguments: tuple[Callable[[_Draw], np.ndarray], ...]
    probs: np.ndarray
    magnitudes: np.ndarray
    deviations: np.ndarray
    bounds: np.ndarray
    rows: np.ndarray | None
    num_ops: int
    weights: np.ndarray | None


@lru_cache(maxsize=8)
def _timm_policy(words: str) -> _Policy:
    from timm.data.auto_augment import auto_augment_transform, rand_augment_transform

    if words.startswith("rand"):
        policy = rand_augment_transform(words, {})
        ops, rows, num_ops, weights = policy.ops, None, policy.num_layers, policy.choice_weights
    else:
        sets = auto_augment_transform(words, {}).policy
        ops, num_ops, weights = [op for each in sets for op in each], max(map(len, sets)), None
        starts = np.cumsum([0] + [len(each) for each in sets])
        rows = np.array([[start + k if k < len(each) else -1 for k in range(num_ops)]
                         for start, each in zip(starts, sets, strict=False)])  # fmt: skip
    names, arguments = zip(*(TIMM_ARGUMENTS[op.name] for op in ops), strict=True)
    columns = zip(*((op.prob, op.magnitude, op.magnitude_std, op.magnitude_max or _LEVELS) for op in ops), strict=True)
    numbers = (np.array(column, np.float64) for column in columns)
    return _Policy(np.array([POSITION[name] for name in names]), arguments, *numbers, rows, num_ops, weights)


def _draw_timm(words: str, num_images: int, side: int, modes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    policy, shape = _timm_policy(words), (num_images, _timm_policy(words).num_ops)
    chosen = _choose(policy, num_images, rng)
    normal, uniform, deviation = rng.standard_normal(shape), rng.random(shape), policy.deviations[chosen]
    uniformly = np.isinf(deviation)  # timm's word for a uniform magnitude in [0, m]
    magnitude = policy.magnitudes[chosen]
    magnitude = np.where(uniformly, uniform * magnitude, magnitude + normal * np.where(uniformly, 0, deviation))
    level = np.clip(magnitude, 0, policy.bounds[chosen]) / _LEVELS
    draw = _Draw(level, _signs(shape, rng), rng.random(shape), side)
    arguments = np.zeros(shape)
    for function in set(policy.arguments):
        own = np.array([each is function for each in policy.arguments])[chosen]
        arguments = np.where(own, function(draw), arguments)
    applied = (rng.random(shape) < policy.probs[chosen]) & (chosen >= 0)
    return _layers(np.where(applied, policy.positions[chosen], -1), arguments, rng.choice(modes, shape))


def _choose(policy: _Policy, num_images: int, rng: np.random.Generator) -> np.ndarray:
    """int64 (B, L): which of the policy's operations."""
    if policy.rows is not None:
        return policy.rows[rng.integers(0, len(policy.rows), num_images)]
    if policy.weights is None:
        return rng.integers(0, len(policy.positions), (num_images, policy.num_ops))
    # The largest of log weights plus Gumbel noise is drawn with these weights, the next with those that remain, ...
    keys = np.log(policy.weights) + rng.gumbel(size=(num_images, len(policy.weights)))
    return np.argsort(-keys, axis=1)[:, : policy.num_ops]
