"""Random erasing (arXiv 1708.04896) of uint8 batches, with timm's distribution of rectangles and colors.

timm erases normalized images. Here the same colors are written as uint8, so noise is rounded and cut to [0, 255].
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fixres.augment.tensor_operations import on_device
from fixres.pipelines.spec import IMAGENET_MEAN, IMAGENET_STD

_AREA, _LOG_ASPECT, _NUM_ATTEMPTS = (0.02, 1 / 3), (math.log(0.3), math.log(1 / 0.3)), 10
_MEAN, _STD = 255 * np.array(IMAGENET_MEAN), 255 * np.array(IMAGENET_STD)


def draw_boxes(
    prob: float, max_count: int, num_images: int, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rectangles in some of the images, as timm.data.random_erasing.RandomErasing draws them.

    Args:
        prob: share of the images with rectangles.
        max_count: an image gets 1 to `max_count`, whose areas are divided by their number.
        num_images: in the batch.
        side: of the square images, in pixels.
        rng: source of the random numbers.

    Returns:
        int64 (B, max_count, 4), top, left, height, width in pixels; bool (B, max_count), which of them are there.
    """
    shape = (num_images, max_count, _NUM_ATTEMPTS)
    counts = np.where(rng.random(num_images) < prob, rng.integers(1, max_count + 1, num_images), 0)[:, None]
    area = rng.uniform(*_AREA, shape) * side**2 / np.maximum(counts, 1)[..., None]
    aspect = np.exp(rng.uniform(*_LOG_ASPECT, shape))
    sizes = np.rint(np.sqrt([area * aspect, area / aspect])).astype(np.int64)
    fits = (sizes < side).all(0)
    first = fits.argmax(-1)[..., None]
    height, width = (np.take_along_axis(size, first, -1)[..., 0] for size in sizes)
    top, left = (np.floor(rng.random(shape[:2]) * (side - size + 1)).astype(np.int64) for size in (height, width))
    return np.stack([top, left, height, width], -1), fits.any(-1) & (np.arange(max_count) < counts)


def erase(images: Tensor, boxes: np.ndarray, present: np.ndarray, mode: str, colors: np.ndarray, seed: int) -> Tensor:
    """uint8 (B, H, W, 3) with the rectangles of `draw_boxes` erased. The input is not changed.

    Args:
        images: uint8 (B, H, W, 3).
        boxes: int64 (B, K, 4).
        present: bool (B, K).
        mode: timm's words: "const" erases with ImageNet's mean color, "rand" with one color, "pixel" with one a pixel.
        colors: float64 (B, K, 3), normal; used by "rand".
        seed: of the pixels of "pixel", which differ between devices.
    """
    images, chosen = images.clone(), np.argwhere(present)
    if mode == "pixel":
        return _erase_with_noise(images, boxes, chosen, seed)
    values = _MEAN + (_STD * colors[present] if mode == "rand" else np.zeros((len(chosen), 3)))
    shades = on_device(np.clip(np.rint(values), 0, 255).astype(np.uint8), images.device)
    for shade, (image, k) in zip(shades, chosen, strict=True):
        top, left, height, width = boxes[image, k]
        images[image, top : top + height, left : left + width] = shade
    return images


def _erase_with_noise(images: Tensor, boxes: np.ndarray, chosen: np.ndarray, seed: int) -> Tensor:
    generator = torch.Generator(images.device).manual_seed(seed)
    mean, std = (on_device(values.astype(np.float32), images.device) for values in (_MEAN, _STD))
    for image, k in chosen:
        top, left, height, width = boxes[image, k]
        noise = torch.randn(int(height), int(width), 3, generator=generator, device=images.device)
        shades = noise.mul_(std).add_(mean).round_().clamp_(0, 255).to(torch.uint8)
        images[image, top : top + height, left : left + width] = shades
    return images
