"""Accuracy, likelihood and calibration of logits, and the temperature that corrects the likelihood."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

_NUM_BINS = 15


def top1(logits: Tensor, labels: Tensor) -> float:
    """Fraction of rows of (N, C) whose highest score is the label's."""
    return float((logits.argmax(1) == labels).double().mean())


def nll(logits: Tensor, labels: Tensor) -> float:
    """Mean negative log likelihood in nats."""
    return float(cross_entropy(logits.double(), labels))


def calibration_error(logits: Tensor, labels: Tensor) -> float:
    """Expected calibration error over 15 bins of equal width (arXiv 1706.04599, section 2), in [0, 1]."""
    confidence, predicted = logits.double().softmax(1).max(1)
    bins = np.clip(np.ceil(confidence.numpy() * _NUM_BINS).astype(int) - 1, 0, _NUM_BINS - 1)
    gaps = np.bincount(bins, (predicted == labels).double().numpy() - confidence.numpy(), _NUM_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def temperature(logits: Tensor, labels: Tensor) -> float:
    """The number that logits are divided by for the least NLL on these rows (arXiv 1706.04599, section 4.2)."""
    from scipy.optimize import minimize_scalar

    def loss(log_t: float) -> float:
        return nll(logits / float(np.exp(log_t)), labels)

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def figures(logits: list[Tensor], labels: list[Tensor]) -> dict[str, float | list[float]]:
    """top1 and NLL of each fold, calibration error over all of them together."""
    folds = list(zip(logits, labels, strict=True))
    return {
        "top1": [top1(*fold) for fold in folds],
        "nll": [nll(*fold) for fold in folds],
        "calibration_error": calibration_error(torch.cat(logits), torch.cat(labels)),
    }
