"""The training loss: what it takes, and cross entropy with hard or soft labels (arXiv 1812.01187, section 5.2)."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class Loss(Protocol):
    """What the training step minimizes."""

    def __call__(self, logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:
        """A scalar, from logits (B, K), targets int64 (B,) or float (B, K), and uint8 NHWC images, on the device."""
        ...


class CrossEntropy:
    """Mean cross entropy; smoothing applies to hard and soft labels alike (section 5.2).

    Args:
        label_smoothing: in [0, 1).
    """

    def __init__(self, label_smoothing: float) -> None:
        self._criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def __call__(self, logits: Tensor, targets: Tensor, images: Tensor) -> Tensor:  # noqa: ARG002
        """As `Loss`; the images do not matter."""
        return self._criterion(logits, targets)
