"""How the pooled activations, the classifier's input, change with the test resolution (arXiv 1906.06423, section 3.2).

Pooling over a larger map averages over more places: fewer zeros, less spread. The classifier learnt on the training
resolution's distribution; how far another one lies from it says how much there is for a fix to mend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fixres.models.factory import Normalize
from fixres.models.precision import Precision
from fixres.models.probe import probe_network
from pipelines.spec import InputError, Loader

_NUM_QUANTILES = 201


@dataclass(frozen=True)
class ActivationStatistics:
    """The values of all channels and images at one test resolution, taken together.

    Attributes:
        test_res: test resolution in pixels.
        zero_share: share of values that are exactly 0. Of use behind ReLU; SiLU, GELU and LayerNorm give no zeros.
        mean: mean of the values.
        std: their standard deviation.
        distance: Wasserstein-1 distance to the values at the training resolution, in their unit.
        quantiles: the values not exceeded by 0, 0.5, 1 ... 100 % of all: the inverse of the distribution function.
        num_images: images that were seen.
        num_channels: channels of the classifier's input.
    """

    test_res: int
    zero_share: float
    mean: float
    std: float
    distance: float
    quantiles: tuple[float, ...]
    num_images: int
    num_channels: int


def activation_statistics(
    net: nn.Module,
    normalize: Normalize,
    loader: Loader,
    precision: Precision,
    resolutions: Iterable[int],
    train_res: int,
    num_images: int = 1000,
) -> list[ActivationStatistics]:
    """Statistics at each resolution on the same images, and their distance to those at `train_res`.

    Args:
        net: a trained network; left in eval mode.
        normalize: uint8 NHWC batches to its input.
        loader: images cropped as in testing. Shuffled, if it holds more than `num_images`: stored order is by class.
        precision: number format and device.
        resolutions: test resolutions in pixels.
        train_res: training resolution in pixels; evaluated even if it is not among `resolutions`.
        num_images: at most so many of the loader's first images; each takes 4 bytes a channel.

    Raises:
        InputError: the network has no classifier, or its input is not pooled.
    """
    net.eval()
    classifier = probe_network(net, train_res).head.classifier

    def sorted_values(resolution: int) -> tuple[np.ndarray, tuple[int, int]]:
        loader.set_resolution(resolution)
        values = pooled_activations(net, classifier, normalize, loader, precision, num_images)
        return np.sort(values, axis=None), values.shape

    reference = sorted_values(train_res)
    results = []
    for resolution in resolutions:
        values, shape = reference if resolution == train_res else sorted_values(resolution)
        results.append(_statistics(resolution, values, shape, reference[0]))
    return results


def pooled_activations(
    net: nn.Module,
    classifier: nn.Module,
    normalize: Normalize,
    loader: Loader,
    precision: Precision,
    num_images: int,
) -> np.ndarray:
    """What `classifier` is given for the first `num_images` of `loader`, at its current resolution.

    Returns:
        float32 (N, C).
    """
    parts, num_seen = [], 0
    with torch.inference_mode(), inputs_of(classifier) as caught:
        for batch in loader:
            with precision.autocast():
                net(normalize(batch.images.to(precision.device, non_blocking=True)))
            if len(caught) != 1:
                raise InputError(f"{type(net).__name__} calls its classifier {len(caught)} times for a batch, not once")
            parts.append(_flat(caught.pop()).float().cpu().numpy())
            num_seen += len(parts[-1])
            if num_seen >= num_images:
                break
    if not parts:
        raise InputError("the loader gave no images; activations need at least one")
    values = np.concatenate(parts)[:num_images]
    if not np.isfinite(values).all():
        raise InputError(f"activations at {loader.resolution} px are not finite; use another precision")
    return values


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein-1 distance of two samples, sorted, of any lengths: the area between their distribution functions."""
    points = np.concatenate([a, b])
    points.sort(kind="stable")
    below_a, below_b = (np.searchsorted(sample, points[:-1], side="right") / len(sample) for sample in (a, b))
    return float(np.sum(np.abs(below_a - below_b) * np.diff(points.astype(np.float64))))


def _statistics(
    resolution: int, values: np.ndarray, shape: tuple[int, int], reference: np.ndarray
) -> ActivationStatistics:
    at = np.linspace(0, len(values) - 1, _NUM_QUANTILES).round().astype(np.int64)
    return ActivationStatistics(
        test_res=resolution,
        zero_share=float(np.mean(values == 0)),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        distance=wasserstein(values, reference),
        quantiles=tuple(values[at].tolist()),
        num_images=shape[0],
        num_channels=shape[1],
    )


@contextmanager
def inputs_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collects the first argument of every call of `module` inside the block."""
    caught: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    try:
        yield caught
    finally:
        handle.remove()


def _flat(features: Tensor) -> Tensor:
    """(B, C) from (B, C) or (B, C, 1, 1), as classifiers that are convolutions take it."""
    if features.ndim < 2 or features[0].numel() != features.shape[1]:
        raise InputError(f"the classifier's input has shape {tuple(features.shape)}: it is not pooled before")
    return features.flatten(1)
