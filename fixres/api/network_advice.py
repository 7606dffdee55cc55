"""What a network's outputs on pictures without labels say about test resolutions, and what each resolution costs.

Without labels accuracy cannot be measured. Three figures change with it: the mean of the highest probability, the share
of pictures whose class stays the same when the picture is mirrored (arXiv 2207.07065 relates such invariance to
accuracy), and the distance of the pooled activations to those at the training resolution, which FixRes fine-tuning
corrects (arXiv 1906.06423, section 3.2). None of them is an accuracy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fixres.api.network import ImageLike, Network, TestTransform
from fixres.evaluation.activations import inputs_of, pooled_input
from fixres.models.precision import choose_precision
from fixres.models.predictor import Predictor
from fixres.models.probe import probe_network
from fixres.pipelines.spec import InputError

_BATCH = 32


@dataclass(frozen=True)
class ResolutionFigures:
    """A network at one test resolution, on pictures without labels.

    Attributes:
        test_res: in pixels.
        confidence: mean of the highest probability, in [0, 1].
        flip_agreement: share of pictures whose class stays the same when they are mirrored.
        standard_error: of `flip_agreement`.
        same_class: share of pictures whose class is that at the training resolution.
        distance: Wasserstein-1 distance of the pooled activations to those at the training resolution; None if the
            network does not pool before its classifier.
        images_per_second: of the network alone on this device, without decoding.
        cached_minutes: of a fine-tuning whose epochs repeat the same crops: one pass of the frozen layers.
        uncached_minutes: of one whose crops change: two such passes, at least.
    """

    test_res: int
    confidence: float
    flip_agreement: float
    standard_error: float
    same_class: float
    distance: float | None
    images_per_second: float
    cached_minutes: float
    uncached_minutes: float


@dataclass(frozen=True)
class NetworkAdvice:
    """The figures of all resolutions, rising.

    Attributes:
        train_res: of the network, in pixels.
        num_images: pictures that were looked at.
        num_train: images for which the minutes of a fine-tuning are given.
        advised: the smallest resolution whose flip agreement is within one standard error of the highest.
    """

    train_res: int
    num_images: int
    num_train: int
    figures: tuple[ResolutionFigures, ...]
    advised: int


def network_advice(
    network: Network, images: Sequence[ImageLike], resolutions: Sequence[int], num_train: int
) -> NetworkAdvice:
    """Evaluates the pictures at each resolution and at the training resolution.

    Args:
        network: with its transform; `info.train_res` is the training resolution.
        images: at least two pictures of the kind to be tested, without labels.
        resolutions: in pixels.
        num_train: images of a fine-tuning.

    Raises:
        InputError: too few images, an image that cannot be decoded, a resolution that the network does not take.
    """
    if len(images) < 2:
        raise InputError(f"{len(images)} pictures are too few; give at least 2, better some hundred")
    train_res = network.info.train_res
    reference = _outputs(network, images, train_res)
    found = []
    for resolution in sorted({*resolutions, train_res}):
        outputs = reference if resolution == train_res else _outputs(network, images, resolution)
        found.append(_figures(outputs, reference, num_train))
    best = max(found, key=lambda one: one.flip_agreement)
    least = best.flip_agreement - best.standard_error
    advised = next(one.test_res for one in found if one.flip_agreement >= least)
    return NetworkAdvice(train_res, len(images), num_train, tuple(found), advised)


@dataclass(frozen=True)
class _Outputs:
    resolution: int
    probabilities: Tensor  # (N, C)
    mirrored: Tensor  # int64 (N,), classes of the mirrored images
    pooled: np.ndarray | None  # float32 (N, F)
    images_per_second: float


def _outputs(network: Network, images: Sequence[ImageLike], resolution: int) -> _Outputs:
    probe = probe_network(network.model, resolution)
    normalize = network.transform.normalize
    predictor = Predictor(network.model, normalize, choose_precision("fp32", network.device))
    transform = TestTransform(resolution, network.info.eval_crop, normalize)
    logits, mirrored, pooled, seconds = [], [], [], []
    with torch.inference_mode(), inputs_of(probe.head.classifier) as caught:
        for first in range(0, len(images), _BATCH):
            crops = np.stack([transform.crop(image) for image in images[first : first + _BATCH]])
            batch = torch.from_numpy(crops).to(network.device)
            start = time.perf_counter()
            logits.append(predictor(batch).float().cpu())
            seconds.append((time.perf_counter() - start) / len(batch))
            pooled.append(_pooled(caught, len(batch)))
            mirrored.append(predictor(batch.flip(2)).argmax(1).cpu())
            caught.clear()
    values = None if any(one is None for one in pooled) else np.concatenate(pooled)
    speed = 1 / float(np.median(seconds))  # the first batch also allocates memory
    return _Outputs(resolution, torch.cat(logits).softmax(1), torch.cat(mirrored), values, speed)


def _pooled(caught: list[Tensor], num: int) -> np.ndarray | None:
    try:
        return pooled_input(caught, num).cpu().numpy()
    except InputError:
        return None


def _figures(outputs: _Outputs, reference: _Outputs, num_train: int) -> ResolutionFigures:
    from scipy.stats import wasserstein_distance

    confidence, classes = outputs.probabilities.max(1)
    agreement = float((classes == outputs.mirrored).double().mean())
    distance = None
    if outputs.pooled is not None and reference.pooled is not None:
        distance = float(wasserstein_distance(outputs.pooled.ravel(), reference.pooled.ravel()))
    minutes = num_train / outputs.images_per_second / 60
    return ResolutionFigures(
        test_res=outputs.resolution,
        confidence=float(confidence.double().mean()),
        flip_agreement=agreement,
        standard_error=math.sqrt(agreement * (1 - agreement) / len(classes)),
        same_class=float((classes == reference.probabilities.argmax(1)).double().mean()),
        distance=distance,
        images_per_second=outputs.images_per_second,
        cached_minutes=minutes,
        uncached_minutes=2 * minutes,
    )


def as_text(advice: NetworkAdvice) -> str:
    """The advice as lines for the terminal: a row for each resolution, and what it means."""
    lines = [
        f"{advice.num_images} pictures without labels; fine-tuning on {advice.num_train} images",
        "",
        "  test_res   flip agreement   confidence   same class   distance   images/s   FixRes, min (cached / not)",
    ]
    for one in advice.figures:
        notes = ["as trained"] * (one.test_res == advice.train_res) + ["advised"] * (one.test_res == advice.advised)
        distance = "-" if one.distance is None else f"{one.distance:.4f}"
        row = (
            f"  {one.test_res:>5} px   {one.flip_agreement:>8.1%} ± {one.standard_error:.1%}   {one.confidence:>10.1%}"
            f"   {one.same_class:>10.1%}   {distance:>8}   {one.images_per_second:>8.3g}"
            f"   {one.cached_minutes:>10.3g} / {one.uncached_minutes:<10.3g}   {', '.join(notes)}"
        )
        lines.append(row.rstrip())
    return "\n".join([*lines, "", _explanation(advice)])


def _explanation(advice: NetworkAdvice) -> str:
    line = (
        "Flip agreement and confidence are not accuracies: they rank resolutions of one network, and confidence also "
        f"grows where a network is only surer. Try {advice.advised} px"
    )
    if advice.advised == advice.train_res:
        return f"{line}: larger sizes cost more and do not agree more."
    return (
        f"{line}, and fine-tune for it if you have labels: the larger the distance of the activations, the more FixRes "
        "fine-tuning can correct."
    )
