"""mixup (arXiv 1710.09412; 1812.01187, section 5.4) and CutMix (1905.04899) of uint8 batches, with soft labels.

As in timm.data.Mixup, image i is mixed with image B - 1 - i and all images of a batch share one weight. timm's class
uses NumPy's global random state and float NCHW images, so only its function for the labels is used here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from torch import Tensor

from fixres.augment.kernels import blended_on_cpu
from fixres.config.augment import AugmentConfig


class Mix(NamedTuple):
    """How a batch is mixed.

    Attributes:
        weight: of an image's own label, in [0, 1].
        box: (top, bottom, left, right) in pixels, where CutMix shows the other image; None with mixup.
    """

    weight: float
    box: tuple[int, int, int, int] | None = None


def draw_mix(config: AugmentConfig, side: int, rng: np.random.Generator) -> Mix:
    """Draws one batch's mix, for square images of `side` pixels."""
    if config.cutmix and (not config.mixup or rng.random() < config.cutmix_prob):
        return _draw_box(rng.beta(config.cutmix, config.cutmix), side, rng)
    return Mix(rng.beta(config.mixup, config.mixup))


def _draw_box(weight: float, side: int, rng: np.random.Generator) -> Mix:
    """A square of 1 - weight of the area with a random center; its part inside the image gives the actual weight."""
    cut = int(side * np.sqrt(1 - weight))
    y, x = rng.integers(0, side, 2)
    top, bottom, left, right = (
        int(np.clip(edge, 0, side)) for edge in (y - cut // 2, y + (cut + 1) // 2, x - cut // 2, x + (cut + 1) // 2)
    )
    return Mix(1 - (bottom - top) * (right - left) / side**2, (top, bottom, left, right))


def mixed(images: Tensor, labels: Tensor, mix: Mix, num_classes: int) -> tuple[Tensor, Tensor]:
    """The batch, uint8 (B, H, W, 3) and int64 (B,), mixed with itself in reverse order. The input is not changed.

    Returns:
        uint8 (B, H, W, 3), rounded; float32 (B, num_classes), each row with `weight` for the image's own class
        and the rest for the other's.
    """
    from timm.data.mixup import mixup_target

    return _mixed_images(images, mix), mixup_target(labels, num_classes, mix.weight)


def _mixed_images(images: Tensor, mix: Mix) -> Tensor:
    if mix.box is None and not images.is_cuda:
        return blended_on_cpu(images, mix.weight)
    if mix.box is None:
        own = images.float()
        return own.lerp_(own.flip(0), 1 - mix.weight).round_().to(images.dtype)
    top, bottom, left, right = mix.box
    images = images.clone()
    # flip copies, so no pixel is read after it was written.
    images[:, top:bottom, left:right] = images[:, top:bottom, left:right].flip(0)
    return images
