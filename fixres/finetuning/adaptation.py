"""Adaptation to a test resolution without labels (arXiv 1906.06423, section 4.1; and BatchNorm's statistics).

According to the paper, the pooled activations of all channels together follow a Frechet distribution, P(x) =
exp(-(1 + xi (x - mu) / sigma) ** (-1 / xi)), with xi = 0.3 at every resolution. With a common xi the map from the
distribution at the test resolution to that at the training resolution is a straight line. The paper applies it after
pooling. A line before a linear classifier gives another linear classifier, so the line is folded into the classifier,
and the checkpoint keeps its keys.

Mu and sigma are fitted to quantiles, because they are a linear function of them; the paper does not say how it fits.
Quantiles at which either sample is still zero (ReLU) are left out, and so is the outermost percent at both ends. A line
that does not bring the activations nearer to those at the training resolution is not applied.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.config.recipe import FinetuneConfig
from fixres.evaluation.activations import pooled_activations
from fixres.models.predictor import Predictor
from fixres.models.probe import NetworkProbe
from fixres.pipelines.spec import InputError, Loader

XI = 0.3
_PROBABILITIES = np.linspace(0.01, 0.99, 99)


class Frechet(NamedTuple):
    """Location and scale of a Frechet distribution with xi = 0.3."""

    mu: float
    sigma: float


class Line(NamedTuple):
    """The map from x to slope * x + offset."""

    slope: float
    offset: float


def adapt(predictor: Predictor, loader: Loader, config: FinetuneConfig, train_res: int, probe: NetworkProbe) -> str:
    """Adapts the network in place by the method `config.adapt`; returns a line that describes the result.

    `loader` gives images cropped as in testing, shuffled, at the test resolution, that of `probe`.
    """
    if config.adapt == "batchnorm":
        num_layers, num_images = recalibrate(predictor, loader, config.adapt_images)
        return f"statistics of {num_layers} BatchNorms from {num_images} images at {loader.resolution} px"
    if config.adapt == "frechet":
        return _adapt_activations(predictor, probe.head.classifier, loader, train_res, config.adapt_images)
    return "no adaptation"


def fit(values: np.ndarray, above: float = 0.0) -> Frechet:
    """The distribution whose quantiles `above` a probability are nearest to those of the sample, by least squares."""
    probabilities = _PROBABILITIES[_PROBABILITIES > above]
    if len(probabilities) < 2:
        raise InputError(f"{above:.0%} of the pooled activations are 0; there is no distribution to adapt")
    basis = np.column_stack([np.ones(len(probabilities)), ((-np.log(probabilities)) ** -XI - 1) / XI])
    mu, sigma = np.linalg.lstsq(basis, np.quantile(values, probabilities), rcond=None)[0]
    return Frechet(float(mu), float(sigma))


def matching_line(test_values: np.ndarray, train_values: np.ndarray) -> Line:
    """The line from the distribution of activations at the test resolution to that at the training resolution."""
    above = max(float(np.mean(values == 0)) for values in (test_values, train_values))
    test, train = fit(test_values, above), fit(train_values, above)
    if not test.sigma > 0 or not train.sigma > 0:
        raise InputError("the pooled activations do not vary; is the network trained?")
    slope = train.sigma / test.sigma
    return Line(slope, train.mu - slope * test.mu)


def fold(line: Line, classifier: nn.Module) -> None:
    """Changes the classifier so that its output for x is its old output for slope * x + offset."""
    if not isinstance(classifier.bias, Tensor):
        raise InputError("finetune.adapt=frechet needs a classifier with bias; use finetune.adapt=batchnorm")
    with torch.no_grad():
        classifier.bias += line.offset * classifier.weight.flatten(1).sum(1)
        classifier.weight *= line.slope


def _adapt_activations(
    predictor: Predictor, classifier: nn.Module, loader: Loader, train_res: int, num_images: int
) -> str:
    from scipy.stats import wasserstein_distance

    test_res = loader.resolution
    predictor.net.eval()
    samples = {}
    for resolution in (train_res, test_res):
        loader.set_resolution(resolution)
        samples[resolution] = pooled_activations(predictor, classifier, loader, num_images)
    loader.set_resolution(test_res)
    train, test = samples[train_res].ravel(), samples[test_res].ravel()
    line = matching_line(test, train)
    before, after = (wasserstein_distance(values, train) for values in (test, line.slope * test + line.offset))
    text = f"{line.slope:.3f} x {line.offset:+.3f}"
    distances = f"their distance to those at {train_res} px is {before:.4f} before, {after:.4f} after"
    if after >= before:  # if many are 0, which a line cannot keep at 0
        return f"pooled activations left unchanged, because {text} would not bring them nearer: {distances}"
    fold(line, classifier)
    return f"pooled activations mapped by {text}: {distances}"


def recalibrate(predictor: Predictor, loader: Loader, num_images: int) -> tuple[int, int]:
    """Sets the statistics of every BatchNorm to those of its input, over whole batches of about `num_images` images.

    Each layer's input is normalized with the statistics of its own batch, as in training. The new statistics are mean
    and variance over all images of all batches, not an average of the batches' variances. Returns the numbers of
    BatchNorms and images.
    """
    net = predictor.net.eval()
    twin, moments = copy.deepcopy(net), {}
    for name, norm in twin.named_modules():
        if isinstance(norm, _BatchNorm) and norm.track_running_stats:
            moments[name] = found = _Moments()
            norm.train()
            norm.register_forward_pre_hook(lambda _, inputs, found=found: found.add(inputs[0]))
    if not moments:
        raise InputError(
            f"finetune.adapt=batchnorm: {type(net).__name__} has no BatchNorm with statistics; use "
            "finetune.adapt=frechet"
        )
    num_seen = _run(predictor._replace(net=twin), loader, num_images)
    with torch.no_grad():
        for name, found in moments.items():
            if found.num:  # a BatchNorm that the forward never calls keeps its statistics
                norm = net.get_submodule(name)
                for old, new in zip((norm.running_mean, norm.running_var), found.result(), strict=True):
                    old.copy_(new)
    return len(moments), num_seen


def _run(predictor: Predictor, loader: Loader, num_images: int) -> int:
    """Evaluates whole batches of at least `num_images` images; returns their number."""
    num_seen = 0
    with torch.inference_mode():
        for batch in loader:
            try:
                predictor(batch.images)
            except ValueError as error:
                raise InputError(
                    f"BatchNorm cannot take statistics from a batch of {len(batch.labels)}; raise batch_size"
                ) from error
            num_seen += len(batch.labels)
            if num_seen >= num_images:
                return num_seen
    if not num_seen:
        raise InputError("the loader gave no images; statistics need at least one batch")
    return num_seen


class _Moments:
    """Mean and variance of all values of each channel, over any number of batches, in float64."""

    def __init__(self) -> None:
        self.num = 0
        self._mean: Tensor | float = 0.0
        self._square: Tensor | float = 0.0  # sum of squared distances from the mean

    def add(self, values: Tensor) -> None:
        """`values` (B, C) or (B, C, ...)."""
        values = values.transpose(0, 1).flatten(1).double()
        num, mean = values.shape[1], values.mean(1)
        distance, total = mean - self._mean, self.num + num
        self._square = self._square + values.var(1, unbiased=False) * num + distance**2 * (self.num * num / total)
        self._mean = self._mean + distance * (num / total)
        self.num = total

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean and unbiased variance, (C,) each."""
        assert isinstance(self._mean, Tensor) and isinstance(self._square, Tensor)
        return self._mean, self._square / max(self.num - 1, 1)
