"""Color jitter and PCA noise of batches on their device (arXiv 1812.01187, section 2.1).

Brightness, saturation, hue and the noise along the principal colors are all affine in (red, green, blue). So each
image gets one 3 x 3 matrix and one shift, and a batch needs one pass, rounded and clipped to [0, 255] once, at the end.
The color jitter of FixRes differs: its contrast needs the mean of the image, and it rounds after each of three steps.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fixres.augment.kernels import recolored_on_cpu

# Luma and two axes of color (YIQ): hue rotates the two axes, saturation scales them.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
# Of ImageNet's RGB values in [0, 1], the numbers of AlexNet's PCA noise; columns are the principal colors.
_PCA_VALUES = np.array([0.2175, 0.0188, 0.0045])
_PCA_VECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])


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
