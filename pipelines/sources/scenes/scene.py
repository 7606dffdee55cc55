"""The contents of each synthetic scene, a pure function of (seed, split, index).

Each scene shows one textured object of a class-typical size, mostly near the center, and distractors with the same
textures but other shapes, on a textured background. Train and val are drawn alike. Objects look larger in training than
in testing because of RandomResizedCrop alone, as with photographs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fixres.pipelines.spec import InputError

Split = Literal["train", "val"]
SPLITS: tuple[Split, ...] = ("train", "val")

# Shape, and its typical diameter over SceneConfig.object_pixels. Areas are about the same.
SHAPES = {"disc": 0.96, "cross": 1.22, "triangle": 1.22, "square": 1.2, "ring": 1.1}
# Three patterns of one spatial frequency, with one, two and three directions. Fine patterns differ only in details of a
# few pixels.
PATTERNS = ("stripes", "checks", "dots")
GRAINS = ("fine", "coarse")
CLASSES = tuple(f"{shape}_{pattern}_{grain}" for shape in SHAPES for pattern in PATTERNS for grain in GRAINS)
# Largest tilt in radians: things stand about upright, as in photographs.
_TILT = 0.3
DISTRACTOR_SHAPES = ("ellipse", "slab")
_DISTRACTOR_PATTERNS = (*PATTERNS, "plain")
# Allowed values of SceneConfig's fields; both ends of a range must be within.
_LIMITS = {
    "seed": (0, 2**63 - 1),
    "num_classes": (2, len(CLASSES)),
    "num_train": (2, 99_999),
    "num_val": (2, 99_999),
    "long_side": (64, 8192),
    "aspect": (0.1, 1),
    "portrait_share": (0, 1),
    "object_pixels": (4, 8192),
    "object_spread": (0, 1),
    "offset_spread": (0, 1),
    "fine_pixels": (2, 8192),
    "coarse_pixels": (2, 8192),
    "texture_spread": (0, 1),
    "contrast": (0, 1),
    "num_distractors": (0, 1000),
    "noise": (0, 100),
    "quality": (1, 95),
}


@dataclass(frozen=True)
class SceneConfig:
    """Parameters of the data set. Equal parameters and an equal Pillow version give equal files."""

    seed: int = 0
    num_classes: int = 12
    """The first classes of `CLASSES`."""
    num_train: int = 1560
    """Training images, over all classes."""
    num_val: int = 1200
    """Test images; at 1200 the standard error of an accuracy of 90 % is 0.9 points."""
    long_side: tuple[int, int] = (430, 500)
    """Range of the longer image side in pixels."""
    aspect: tuple[float, float] = (0.67, 0.8)
    """Range of the shorter side over the longer one."""
    portrait_share: float = 0.3
    """Share of images that are higher than wide."""
    object_pixels: float = 150.0
    """Typical object diameter in pixels; each shape has its own multiple of it."""
    object_spread: float = 0.2
    """Standard deviation of the log of an object's diameter within its class."""
    offset_spread: float = 0.1
    """Standard deviation of the object's center from the image's center, over the image's side."""
    fine_pixels: float = 18.0
    """Wavelength of fine textures in pixels."""
    coarse_pixels: float = 35.0
    """Wavelength of coarse textures in pixels."""
    texture_spread: float = 0.2
    """Standard deviation of the log of a wavelength within its class."""
    contrast: tuple[float, float] = (0.5, 1.0)
    """Range of the difference between a texture's two colors, as a share of the gray range."""
    num_distractors: tuple[int, int] = (4, 8)
    """Range of the number of smaller distractors behind the object."""
    noise: float = 6.0
    """Standard deviation of the sensor noise in gray levels."""
    quality: int = 90
    """JPEG quality; chroma is subsampled 4:2:0 as in most photographs."""

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            first, last = value if isinstance(value, (tuple, list)) else (value, value)
            if not low <= first <= last <= high:
                raise InputError(f"{name}={value} must {'be' if first == last else 'rise'} within [{low}, {high}]")
        for name in ("num_train", "num_val"):
            if getattr(self, name) < self.num_classes:
                raise InputError(f"{name}={getattr(self, name)} leaves a class empty; use {self.num_classes} or more")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order: sorted, as ImageFolder sorts them."""
        return tuple(sorted(CLASSES[: self.num_classes]))

    def num_images(self, split: Split) -> int:
        return self.num_train if split == "train" else self.num_val


@dataclass(frozen=True)
class Thing:
    """An object or distractor. Lengths in pixels, angles in radians, colors RGB in [0, 255]."""

    shape: str
    pattern: str
    """One of PATTERNS, or "plain"."""
    wavelength: float
    diameter: float
    center: tuple[float, float]
    """y, x."""
    angle: float
    texture_angle: float
    phase: tuple[float, float]
    """Shift of the texture, in wavelengths."""
    aspect: float
    """Stretch along the shape's second axis; 1 for objects."""
    colors: tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Scene:
    """The contents of one picture. Lengths in pixels."""

    label: int
    height: int
    width: int
    things: tuple[Thing, ...]
    """From back to front; a sliver may cover part of the labeled object."""
    target: int
    """Position of the labeled object in `things`."""
    light: tuple[float, float, float]
    """Gain at the center, and its change from edge to edge along y and x."""
    noise: float
    """Standard deviation in gray levels."""
    background_seed: int


def scene_label(config: SceneConfig, index: int) -> int:
    """Label of image `index`. Labels cycle, so the classes' numbers of images differ by one at most."""
    return index % config.num_classes


def draw_scene(config: SceneConfig, split: Split, index: int) -> Scene:
    """The contents of image `index` of `split`: a pure function of its arguments."""
    random = np.random.default_rng([config.seed, SPLITS.index(split), index])
    height, width = _image_size(config, random)
    label = scene_label(config, index)
    target = _target(config, config.classes[label], height, width, random)
    num = int(random.integers(config.num_distractors[0], config.num_distractors[1] + 1))
    behind = [_distractor(config, height, width, random) for _ in range(num)]
    in_front = [_occluder(config, target, random)] if random.random() < 0.3 else []
    return Scene(
        label=label,
        height=height,
        width=width,
        things=(*behind, target, *in_front),
        target=num,
        light=(random.uniform(0.75, 1.15), random.uniform(-0.3, 0.3), random.uniform(-0.3, 0.3)),
        noise=config.noise * random.uniform(0.4, 1.6),
        background_seed=int(random.integers(2**32)),
    )


def _image_size(config: SceneConfig, random: np.random.Generator) -> tuple[int, int]:
    long_side = int(random.integers(config.long_side[0], config.long_side[1] + 1))
    short_side = round(long_side * random.uniform(*config.aspect))
    return (long_side, short_side) if random.random() < config.portrait_share else (short_side, long_side)


def _target(config: SceneConfig, name: str, height: int, width: int, random: np.random.Generator) -> Thing:
    shape, pattern, grain = name.split("_")
    typical = config.object_pixels * SHAPES[shape]
    offset = np.clip(random.normal(0, config.offset_spread, 2), -0.3, 0.3)
    return Thing(
        shape=shape,
        pattern=pattern,
        wavelength=_wavelength(config, grain == "fine", random),
        diameter=typical * math.exp(random.normal(0, config.object_spread)),
        center=(height * (0.5 + offset[0]), width * (0.5 + offset[1])),
        aspect=1.0,
        **_finish(config, random),
    )


def _distractor(config: SceneConfig, height: int, width: int, random: np.random.Generator) -> Thing:
    pattern = _DISTRACTOR_PATTERNS[random.integers(len(_DISTRACTOR_PATTERNS))]
    return Thing(
        shape=DISTRACTOR_SHAPES[random.integers(len(DISTRACTOR_SHAPES))],
        pattern=pattern,
        wavelength=_wavelength(config, random.random() < 0.5, random),
        diameter=config.object_pixels * random.uniform(0.3, 0.7),
        center=(height * random.random(), width * random.random()),
        aspect=random.uniform(0.35, 0.65),
        **_finish(config, random),
    )


def _occluder(config: SceneConfig, target: Thing, random: np.random.Generator) -> Thing:
    """A plain ellipse that covers part of the target's rim."""
    bearing = random.uniform(0, 2 * math.pi)
    reach = 0.45 * target.diameter
    return Thing(
        shape="ellipse",
        pattern="plain",
        wavelength=config.coarse_pixels,
        diameter=target.diameter * random.uniform(0.3, 0.6),
        center=(target.center[0] + reach * math.sin(bearing), target.center[1] + reach * math.cos(bearing)),
        aspect=random.uniform(0.35, 0.65),
        **_finish(config, random),
    )


def _wavelength(config: SceneConfig, fine: bool, random: np.random.Generator) -> float:
    return (config.fine_pixels if fine else config.coarse_pixels) * math.exp(random.normal(0, config.texture_spread))


def _finish(config: SceneConfig, random: np.random.Generator) -> dict:
    """Angles, phases and colors. They have the same distribution for all things, so they do not reveal the class."""
    middle = random.uniform(70, 185, 3)
    swing = random.normal(0, 0.35, 3) + random.choice((-1.0, 1.0))
    half = 127.5 * random.uniform(*config.contrast) * swing
    return {
        "angle": random.uniform(-_TILT, _TILT),
        "texture_angle": random.uniform(0, 2 * math.pi),
        "phase": (random.random(), random.random()),
        "colors": (tuple(float(v) for v in middle - half), tuple(float(v) for v in middle + half)),
    }
