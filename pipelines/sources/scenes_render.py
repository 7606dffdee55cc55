"""Pixels of a synthetic scene.

Only sums, products, roots and rounding touch the pixels, no vectorised sine or exponential: those differ in the last
bit between processors' vector units, and the files should not.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image

from pipelines.sources.scenes import Scene, SceneConfig, Split, Thing, draw_scene

# The background's layers, coarse to fine: cell size in pixels, range in grey levels common to the channels, and range
# of each channel's own part.
_LAYERS = ((160, 60.0, 50.0), (40, 50.0, 25.0), (12, 45.0, 15.0), (4, 50.0, 10.0))


def scene_jpeg(config: SceneConfig, split: Split, index: int) -> bytes:
    """Image `index` of `split` as a JPEG file."""
    buffer = io.BytesIO()
    pixels = render(draw_scene(config, split, index))
    Image.fromarray(pixels).save(buffer, "JPEG", quality=config.quality, subsampling="4:2:0")
    return buffer.getvalue()


def render(scene: Scene) -> np.ndarray:
    """uint8 (height, width, 3), RGB: a pure function of the scene."""
    random = np.random.default_rng(scene.background_seed)
    canvas = _background(scene.height, scene.width, random)
    for thing in scene.things:
        _paint(canvas, thing)
    _light(canvas, scene.light)
    # Uniform noise over 8-bit steps: a fifth of the time of normal noise; its range is sqrt(12) standard deviations.
    noise = random.integers(0, 256, (scene.height, scene.width, 1), np.uint8).astype(np.float32)
    canvas += (noise - np.float32(127.5)) * np.float32(scene.noise * math.sqrt(12) / 255)
    np.clip(canvas, 0, 255, out=canvas)
    return np.rint(canvas).astype(np.uint8)


def _background(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """float32 (height, width, 3): layers of smooth noise, each with a strength drawn for this picture.

    Each layer is added to the enlarged coarser ones on its own small grid, so only one enlargement is of full size.
    """
    sum_of_layers = np.empty((1, 1, 3), np.float32)
    sum_of_layers[:] = random.uniform(80, 175, 3)
    for cell, grey, colour in _LAYERS:
        rows, columns = -(-height // cell), -(-width // cell)
        strength = random.uniform(0.25, 1.0)
        noise = grey * (random.random((rows, columns, 1), np.float32) - np.float32(0.5))
        noise = noise + colour * (random.random((rows, columns, 3), np.float32) - np.float32(0.5))
        sum_of_layers = _enlarge(sum_of_layers, rows, columns) + np.float32(strength) * noise
    return _enlarge(sum_of_layers, height, width)


def _enlarge(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 (height, width, 3) from float32 HWC in grey levels, by Pillow's bicubic filter on 8 bits."""
    levels = Image.fromarray(np.rint(np.clip(image, 0, 255)).astype(np.uint8))
    return np.asarray(levels.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)


def _paint(canvas: np.ndarray, thing: Thing) -> None:
    """Blends `thing` into `canvas` (float32 HWC) in place, with a rim antialiased over one pixel."""
    reach = 0.54 * thing.diameter + 1  # the cross's corners lie furthest from the centre, 0.532 diameters
    y, x = thing.centre
    top, bottom = max(0, math.floor(y - reach)), min(canvas.shape[0], math.ceil(y + reach))
    left, right = max(0, math.floor(x - reach)), min(canvas.shape[1], math.ceil(x + reach))
    if top >= bottom or left >= right:
        return
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    dx = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
    cover = np.clip(np.float32(0.5) - _distance(thing, dy, dx), 0, 1)[..., None]
    first, second = (np.array(colour, np.float32) for colour in thing.colours)
    blend = np.float32(0.5) + np.float32(0.5) * _texture(thing, dy, dx)[..., None]
    patch = canvas[top:bottom, left:right]
    patch += cover * (first + blend * (second - first) - patch)


def _rotate(dy: np.ndarray, dx: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return cos * dx + sin * dy, cos * dy - sin * dx


def _distance(thing: Thing, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """float32: about the distance in pixels from the shape's rim, negative inside."""
    u, v = _rotate(dy, dx, thing.angle)
    radius = np.float32(thing.diameter / 2)
    v = v / np.float32(thing.aspect)
    if thing.shape == "triangle":
        half_root = np.float32(math.sqrt(0.75))
        return np.maximum(np.maximum(half_root * u - v / 2, -half_root * u - v / 2), v) - radius / 2
    if thing.shape in ("square", "slab"):
        return np.maximum(np.abs(u), np.abs(v)) - radius * np.float32(0.74)
    if thing.shape == "cross":
        a, b = np.abs(u), np.abs(v)
        return np.maximum(np.maximum(a, b) - radius, np.minimum(a, b) - radius * np.float32(0.36))
    from_centre = np.sqrt(u * u + v * v)
    if thing.shape == "ring":
        return np.abs(from_centre - radius * np.float32(0.7)) - radius * np.float32(0.3)
    return from_centre - radius


def _texture(thing: Thing, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1]: plane waves of the thing's wavelength, in one, two or three directions."""
    u, v = _rotate(dy, dx, thing.texture_angle)
    u, v = u / np.float32(thing.wavelength), v / np.float32(thing.wavelength)
    first, second = (np.float32(phase) for phase in thing.phase)
    if thing.pattern == "plain":
        return np.zeros_like(u)
    if thing.pattern == "stripes":
        return _wave(u + first)
    if thing.pattern == "checks":
        return (_wave(u + first) + _wave(v + second)) / np.float32(2)
    half_root = np.float32(math.sqrt(0.75))
    # The phases add up to 0, which makes bright dots on a dark ground wherever the lattice lies.
    waves = _wave(u + first) + _wave(half_root * v - u / 2 + second) + _wave(-half_root * v - u / 2 - first - second)
    return np.clip(waves / np.float32(1.5), -1, 1)


def _wave(cycles: np.ndarray) -> np.ndarray:
    """A sine's look-alike of period 1 from a triangle wave and a cubic."""
    triangle = np.float32(4) * np.abs(cycles - np.floor(cycles) - np.float32(0.5)) - np.float32(1)
    return triangle * (np.float32(1.5) - np.float32(0.5) * triangle * triangle)


def _light(canvas: np.ndarray, light: tuple[float, float, float]) -> None:
    """Multiplies `canvas` in place by a plane of gain."""
    centre, along_y, along_x = light
    height, width = canvas.shape[:2]
    rows = np.linspace(-along_y / 2, along_y / 2, height, dtype=np.float32)[:, None, None]
    columns = np.linspace(-along_x / 2, along_x / 2, width, dtype=np.float32)[None, :, None]
    canvas *= np.float32(centre) + rows + columns
