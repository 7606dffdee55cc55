"""How the pooled activations, the classifier's input, change with the test resolution (arXiv 1906.06423, section 3.2).

Pooling over a larger map averages over more positions: fewer zeros, less spread. The classifier was trained on the
distribution at the training resolution. The distance to it at another resolution is what fine-tuning can correct.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fixres.config.jobs import ActivationsJob
from fixres.models.checkpoint import CheckpointInfo
from fixres.models.predictor import Predictor
from fixres.models.pretrained import OpenedForJob
from fixres.models.probe import check_takes, probe_network
from fixres.pipelines.spec import InputError, Loader, OpenLoader

_NUM_QUANTILES = 201


@dataclass(frozen=True)
class ActivationStatistics:
    """The values of all channels and images at one test resolution, pooled together.

    Attributes:
        test_res: test resolution in pixels.
        zero_share: share of values that are exactly 0. Useful after ReLU; SiLU, GELU and LayerNorm give no zeros.
        mean: mean of the values.
        std: their standard deviation.
        distance: Wasserstein-1 distance to the values at the training resolution, in their unit.
        quantiles: the values not exceeded by 0, 0.5, 1 ... 100 % of all: the inverse of the distribution function.
        num_images: number of images.
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


def network_activations(
    job: ActivationsJob, opened: OpenedForJob, open_loader: OpenLoader
) -> tuple[CheckpointInfo, list[ActivationStatistics]]:
    """The network's description and the statistics at each of the job's resolutions, in rising order."""
    predictor, info = opened
    resolutions = sorted(set(job.test_res or [info.train_res, info.test_res]))
    for resolution in {info.train_res, *resolutions}:
        check_takes(predictor.net, resolution)
    # Shuffled, because the stored order is by class.
    settings = {"resolution": resolutions[0], "batch_size": job.batch_size, "shuffle": True}
    with closing(open_loader("val", crop=info.eval_crop, **settings)) as loader:
        return info, activation_statistics(predictor, loader, resolutions, info.train_res, job.num_images)


def activation_statistics(
    predictor: Predictor, loader: Loader, resolutions: Iterable[int], train_res: int, num_images: int = 1000
) -> list[ActivationStatistics]:
    """Statistics at each resolution on the same images, and their distance to those at `train_res`.

    Args:
        predictor: the network; left in eval mode.
        loader: images cropped as in testing. Shuffled if it has more than `num_images`: the stored order is by class.
        resolutions: test resolutions in pixels.
        train_res: training resolution in pixels; evaluated even if it is not among `resolutions`.
        num_images: at most this many of the loader's first images; each takes 4 bytes a channel.

    Raises:
        InputError: the network has no classifier, or its input is not pooled.
    """
    predictor.net.eval()
    classifier = probe_network(predictor.net, train_res).head.classifier

    def values_at(resolution: int) -> np.ndarray:
        loader.set_resolution(resolution)
        return pooled_activations(predictor, classifier, loader, num_images)

    reference = values_at(train_res)
    return [
        statistics_of(resolution, reference if resolution == train_res else values_at(resolution), reference)
        for resolution in resolutions
    ]


def pooled_activations(predictor: Predictor, classifier: nn.Module, loader: Loader, num_images: int) -> np.ndarray:
    """float32 (N, C): the input of `classifier` for the first `num_images` of `loader`, at its current resolution."""
    parts, num_seen = [], 0
    with torch.inference_mode(), inputs_of(classifier) as caught:
        for batch in loader:
            predictor(batch.images)
            parts.append(pooled_input(caught, len(batch.images)).cpu().numpy())
            num_seen += len(parts[-1])
            if num_seen >= num_images:
                break
    if not parts:
        raise InputError("the loader gave no images; activations need at least one")
    values = np.concatenate(parts)[:num_images]
    if not np.isfinite(values).all():
        raise InputError(f"activations at {loader.resolution} px are not finite; use another precision")
    return values


def statistics_of(resolution: int, activations: np.ndarray, reference: np.ndarray) -> ActivationStatistics:
    """The statistics of activations float (N, C), with the distance to those at the training resolution, (M, C)."""
    from scipy.stats import wasserstein_distance

    values = np.sort(activations, axis=None)
    at = np.linspace(0, len(values) - 1, _NUM_QUANTILES).round().astype(np.int64)
    return ActivationStatistics(
        test_res=resolution,
        zero_share=float(np.mean(values == 0)),
        mean=float(values.mean(dtype=np.float64)),
        std=float(values.std(dtype=np.float64)),
        distance=float(wasserstein_distance(values, reference.ravel())),
        quantiles=tuple(values[at].tolist()),
        num_images=activations.shape[0],
        num_channels=activations.shape[1],
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


def pooled_input(caught: list[Tensor], num_images: int) -> Tensor:
    """float32 (B, C): takes the classifier's input for B images, (B, C) or (B, C, 1, 1), out of the list.

    The list has a tensor for each piece of the batch (see `Predictor`).
    """
    num_rows = sum(map(len, caught))
    if num_rows != num_images:
        raise InputError(f"the network calls its classifier {num_rows / num_images:g} times for a batch, not once")
    features = torch.cat(caught)
    caught.clear()
    if features.ndim < 2 or features[0].numel() != features.shape[1]:
        raise InputError(f"the classifier's input has shape {tuple(features.shape)}: it is not pooled before")
    return features.flatten(1).float()
