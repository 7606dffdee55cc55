"""Pixels of a synthetic scene.

Pixels are computed with sums, products, roots and rounding only, because vectorized sines and exponentials differ in
the last bit between processors. The kernels run without fastmath for the same reason. They release the GIL, as Pillow
does, so threads render in parallel.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from fixres.pipelines.images.codec import encode_jpeg
from fixres.pipelines.runtime.numba_cache import kernel
from fixres.pipelines.sources.scenes.scene import Scene, SceneConfig, Split, Thing, draw_scene

# The background's layers, coarse to fine: cell size in pixels, range in gray levels common to the channels, and range
# of each channel's own part.
_LAYERS = ((160, 60.0, 50.0), (40, 50.0, 25.0), (12, 45.0, 15.0), (4, 50.0, 10.0))
_SHAPE_NUMBERS = {"disc": 0, "ellipse": 0, "square": 1, "slab": 1, "cross": 2, "triangle": 3, "ring": 4}
_PATTERN_NUMBERS = {"plain": 0, "stripes": 1, "checks": 2, "dots": 3}
_RIM = 0.08  # width of a thing's dark rim, over its radius
_HALF_ROOT = math.sqrt(0.75)


def scene_jpeg(config: SceneConfig, split: Split, index: int) -> bytes:
    """Image `index` of `split` as a JPEG file."""
    return encode_jpeg(render_scene(draw_scene(config, split, index)), config.quality)


def render_scene(scene: Scene) -> np.ndarray:
    """uint8 (height, width, 3), RGB: a pure function of the scene."""
    random = np.random.default_rng(scene.background_seed)
    canvas = _background(scene.height, scene.width, random)
    for thing in scene.things:
        _paint(
            canvas,
            (_SHAPE_NUMBERS[thing.shape], thing.diameter / 2, thing.aspect, *thing.center),
            (math.cos(thing.angle), math.sin(thing.angle)),
            (_PATTERN_NUMBERS[thing.pattern], thing.wavelength, *thing.phase),
            (math.cos(thing.texture_angle), math.sin(thing.texture_angle)),
            np.array(thing.colors),
        )
    # Uniform noise in 8-bit steps takes a fifth of the time of normal noise; its range is sqrt(12) standard deviations.
    noise = random.integers(0, 256, (scene.height, scene.width), np.uint8)
    return _expose(canvas, scene.light, noise, scene.noise * math.sqrt(12) / 255)


def _background(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """float32 (height, width, 3): layers of smooth noise, each with a strength drawn for this picture.

    Each layer is added to the enlarged coarser layers on its own small grid, so only one enlargement has the full size.
    """
    layers = np.empty((1, 1, 3), np.float32)
    layers[:] = random.uniform(80, 175, 3)
    for cell, gray, color in _LAYERS:
        rows, columns = -(-height // cell), -(-width // cell)
        strength = random.uniform(0.25, 1.0)
        noise = gray * (random.random((rows, columns, 1), np.float32) - np.float32(0.5))
        noise = noise + color * (random.random((rows, columns, 3), np.float32) - np.float32(0.5))
        layers = _enlarge(layers, rows, columns) + np.float32(strength) * noise
    return _enlarge(layers, height, width)


def _enlarge(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """float32 (height, width, 3) from float32 HWC in gray levels, by Pillow's bicubic filter on 8 bits."""
    levels = Image.fromarray(np.rint(np.clip(image, 0, 255)).astype(np.uint8))
    return np.asarray(levels.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)


def warm_up() -> None:
    """Compiles the kernels (3 s if numba's cache is empty), so that threads do not wait for one another."""
    render_scene(draw_scene(SceneConfig(long_side=(64, 64)), "train", 0))


@kernel
def _paint(
    canvas: np.ndarray,
    outline: tuple[int, float, float, float, float],
    turn: tuple[float, float],
    texture: tuple[int, float, float, float],
    texture_turn: tuple[float, float],
    colors: np.ndarray,
) -> None:
    """Blends a thing into `canvas` (float32 HWC) in place, with a rim antialiased over one pixel.

    Args:
        canvas: the picture so far.
        outline: shape number, radius in pixels, aspect, center y and x.
        turn: cosine and sine of the outline's angle.
        texture: pattern number, wavelength in pixels, two phases in wavelengths.
        texture_turn: cosine and sine of the texture's angle.
        colors: float64 (2, 3).
    """
    shape, radius, aspect, center_y, center_x = outline
    reach = 1.08 * radius + 1  # the cross's corners lie furthest from the center: 1.063 radii
    for y in range(max(0, math.floor(center_y - reach)), min(canvas.shape[0], math.ceil(center_y + reach))):
        for x in range(max(0, math.floor(center_x - reach)), min(canvas.shape[1], math.ceil(center_x + reach))):
            dy, dx = y - center_y, x - center_x
            u, v = turn[0] * dx + turn[1] * dy, turn[0] * dy - turn[1] * dx
            distance = _distance(shape, radius, u, v / aspect)
            cover = min(1.0, 0.5 - distance)
            if cover <= 0:
                continue
            u, v = texture_turn[0] * dx + texture_turn[1] * dy, texture_turn[0] * dy - texture_turn[1] * dx
            blend = 0.5 + 0.5 * _texture(texture, u, v)
            shade = 0.25 if distance > -_RIM * radius else 1.0
            for channel in range(3):
                color = colors[0, channel] + blend * (colors[1, channel] - colors[0, channel])
                canvas[y, x, channel] += cover * (shade * color - canvas[y, x, channel])


def mark_thing(seen: np.ndarray, thing: Thing, number: int) -> int:
    """Writes `number` into the pixels of `seen`, int16 (height, width), whose centers lie inside of a thing's outline.

    Returns:
        How many pixels it would have in a picture without borders.
    """
    outline = (_SHAPE_NUMBERS[thing.shape], thing.diameter / 2, thing.aspect, *thing.center)
    return _mark(seen, outline, (math.cos(thing.angle), math.sin(thing.angle)), number)


@kernel
def _mark(
    seen: np.ndarray, outline: tuple[int, float, float, float, float], turn: tuple[float, float], number: int
) -> int:
    """See `mark_thing`; outline and turn as for `_paint`."""
    shape, radius, aspect, center_y, center_x = outline
    reach, count = 1.08 * radius + 1, 0
    for y in range(math.floor(center_y - reach), math.ceil(center_y + reach)):
        for x in range(math.floor(center_x - reach), math.ceil(center_x + reach)):
            dy, dx = y - center_y, x - center_x
            u, v = turn[0] * dx + turn[1] * dy, turn[0] * dy - turn[1] * dx
            if _distance(shape, radius, u, v / aspect) <= 0:
                count += 1
                if 0 <= y < seen.shape[0] and 0 <= x < seen.shape[1]:
                    seen[y, x] = number
    return count


@kernel
def _distance(shape: int, radius: float, u: float, v: float) -> float:
    """Approximate distance in pixels from the outline, negative inside; shapes as in _SHAPE_NUMBERS."""
    if shape == 0:
        return math.sqrt(u * u + v * v) - radius
    if shape == 1:
        return max(abs(u), abs(v)) - 0.74 * radius
    if shape == 2:
        return max(max(abs(u), abs(v)) - radius, min(abs(u), abs(v)) - 0.36 * radius)
    if shape == 3:
        return max(_HALF_ROOT * abs(u) - v / 2, v) - radius / 2
    return abs(math.sqrt(u * u + v * v) - 0.7 * radius) - 0.3 * radius


@kernel
def _texture(texture: tuple[int, float, float, float], u: float, v: float) -> float:
    """In [-1, 1]: plane waves of one wavelength in one, two or three directions; patterns as in _PATTERN_NUMBERS."""
    pattern, wavelength, first, second = texture
    u, v = u / wavelength, v / wavelength
    if pattern == 0:
        return 0.0
    if pattern == 1:
        return _wave(u + first)
    if pattern == 2:
        return (_wave(u + first) + _wave(v + second)) / 2
    # The phases add up to 0, so the dots are bright on a dark ground for every shift.
    left, right = _wave(_HALF_ROOT * v - u / 2 + second), _wave(-_HALF_ROOT * v - u / 2 - first - second)
    return max(-1.0, min(1.0, (_wave(u + first) + left + right) / 1.5))


@kernel
def _wave(cycles: float) -> float:
    """Approximates a cosine of period 1 by a triangle wave and a cubic."""
    triangle = 4 * abs(cycles - math.floor(cycles) - 0.5) - 1
    return triangle * (1.5 - 0.5 * triangle * triangle)


@kernel
def _expose(canvas: np.ndarray, light: tuple[float, float, float], noise: np.ndarray, noise_step: float) -> np.ndarray:
    """uint8 (height, width, 3): `canvas` times a plane of gain, plus the same noise on all channels.

    Args:
        canvas: float32 (height, width, 3) in gray levels.
        light: gain at the center, and its change from edge to edge along y and x.
        noise: uint8 (height, width); 127.5 means no noise.
        noise_step: gray levels per level of noise.
    """
    height, width = noise.shape
    image = np.empty((height, width, 3), np.uint8)
    for y in range(height):
        for x in range(width):
            gain = light[0] + light[1] * ((y + 0.5) / height - 0.5) + light[2] * ((x + 0.5) / width - 0.5)
            shift = noise_step * (noise[y, x] - 127.5)
            for channel in range(3):
                level = canvas[y, x, channel] * gain + shift
                image[y, x, channel] = np.uint8(min(255.0, max(0.0, level)) + 0.5)
    return image
