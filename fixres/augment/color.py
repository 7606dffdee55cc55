"""Augmentation of training batches on their device: colors (arXiv 1812.01187, section 2.1), then mixing.

Brightness, saturation, hue and the noise along the principal colors are all affine in (red, green, blue). So each
image gets one 3 x 3 matrix and one shift, and a batch needs one pass, rounded and clipped to [0, 255] once, at the end.
The color jitter of FixRes differs: its contrast needs the mean of the image, and it rounds after each of three steps.

Random numbers are drawn on the host. They are functions of (seed, epoch, step) and of an image's position in the batch
of all processes, so a run repeats, and is the same on every device. Colors do not depend on the number of processes.
Mixing has one weight and box for the whole batch, in all processes; images are mixed with others of their process.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fixres.augment.kernels import recolored_on_cpu
from fixres.augment.mixup import draw_mix, mixed
from fixres.config.augment import AugmentConfig
from fixres.distributed.process_group import num_processes, rank

# Luma and two axes of color (YIQ): hue rotates the two axes, saturation scales them.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
# Of ImageNet's RGB values in [0, 1], the numbers of AlexNet's PCA noise; columns are the principal colors.
_PCA_VALUES = np.array([0.2175, 0.0188, 0.0045])
_PCA_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])

_COLORS, _MIXING = 1, 2  # streams of random numbers; crops and color jitter have other keys


def draw_factors(amount: float, num_images: int, rng: np.random.Generator) -> np.ndarray:
    """float64 (B, 3), uniform in [1 - amount, 1 + amount]: brightness, saturation and hue of each image."""
    return 1 + amount * (2 * rng.random((num_images, 3)) - 1)


def color_matrices(factors: np.ndarray) -> np.ndarray:
    """float64 (B, 3, 3): the matrix that maps a pixel's (red, green, blue) to the jittered color.

    Saturation 0 keeps luma. The paper does not define a factor of the hue; here a factor f rotates it by
    (f - 1) * 180 degrees, as MXNet, the framework of the paper's code, does with f - 1.

    Args:
        factors: float (B, 3), brightness, saturation, hue.
    """
    brightness, saturation, hue = factors.T
    angle = (hue - 1) * np.pi
    within = np.zeros((len(factors), 3, 3))
    within[:, 0, 0] = 1
    within[:, 1, 1] = within[:, 2, 2] = saturation * np.cos(angle)
    within[:, 2, 1] = saturation * np.sin(angle)
    within[:, 1, 2] = -within[:, 2, 1]
    return brightness[:, None, None] * (_FROM_YIQ @ within @ _TO_YIQ)


def pca_shifts(alphas: np.ndarray) -> np.ndarray:
    """float64 (B, 3): shifts of values in [0, 255], from random numbers (B, 3) along the principal colors."""
    return 255 * (alphas * _PCA_VALUES) @ _PCA_VECTORS.T


def recolored(images: Tensor, matrices: Tensor, shifts: Tensor) -> Tensor:
    """uint8 (B, H, W, 3): pixels times matrix (B, 3, 3) plus shift (B, 3), rounded and clipped to [0, 255]."""
    if not images.is_cuda:
        return recolored_on_cpu(images, matrices, shifts)
    values = torch.baddbmm(shifts[:, None], images.flatten(1, 2).float(), matrices.transpose(1, 2))
    return values.round_().clamp_(0, 255).to(torch.uint8).view(images.shape)


class BatchTransform:
    """Colors and mixing of batches."""

    def __init__(self, config: AugmentConfig, num_classes: int, seed: int) -> None:
        self._config, self._num_classes, self._seed, self._epoch = config, num_classes, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Selects the epoch of the next steps."""
        self._epoch = epoch

    def __call__(self, images: Tensor, labels: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The augmented batch of a step, with soft labels if images are mixed.

        Args:
            images: uint8 (B, H, W, 3) on the device; B is the same in all processes.
            labels: int64 (B,) on the device.
            step: number of the batch in its epoch.

        Returns:
            uint8 (B, H, W, 3), and either the labels or float32 (B, num_classes), each row with sum 1.
        """
        if self._config.color or self._config.pca:
            images = self._recolor(images, self._rng(_COLORS, step))
        if not self._config.mixes:
            return images, labels
        mix = draw_mix(self._config, images.shape[1], self._rng(_MIXING, step))
        return mixed(images, labels, mix, self._num_classes)

    def _recolor(self, images: Tensor, rng: np.random.Generator) -> Tensor:
        # Drawn for the images of all processes, of which this one has an equal part; 8192 images take a millisecond.
        num, own = len(images) * num_processes(), slice(len(images) * rank(), len(images) * (rank() + 1))
        matrices = color_matrices(draw_factors(self._config.color, num, rng)[own])
        shifts = pca_shifts(self._config.pca * rng.standard_normal((num, 3))[own])
        both = torch.from_numpy(np.concatenate([matrices.reshape(-1, 9), shifts], axis=1).astype(np.float32))
        if images.is_cuda:  # a copy from pageable memory would wait for the earlier steps
            both = both.pin_memory()
        both = both.to(images.device, non_blocking=True)  # one transfer
        return recolored(images, both[:, :9].reshape(-1, 3, 3), both[:, 9:])

    def _rng(self, stream: int, step: int) -> np.random.Generator:
        key = np.array([self._seed, stream], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, self._epoch, step]))
