"""One network at one test resolution: as it is, adapted without labels, and fine-tuned in each fold.

Features are computed once for each resolution; fine-tunings train on them. The label-free adaptations and the
statistics of activations use the pictures that are never tested. Every fine-tuning starts from the published weights.
"""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.published.pictures import NUM_FOLDS, Pictures, Rows
from benchmarks.published.scores import figures, temperature
from benchmarks.published.weights import PublishedNetwork
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.evaluation.activations import inputs_of, pooled_input, statistics_of
from fixres.finetuning.adaptation import matching_line, recalibrate
from fixres.finetuning.loop import ToFloat, train_epochs
from fixres.finetuning.split_network import SplitNetwork, split
from fixres.finetuning.trainable_layers import freeze_except, trainable_layers
from fixres.models.probe import NetworkProbe, probe_network
from fixres.training.losses import CrossEntropy
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.trainer import Trainer

LAYERS = {
    "classifier": {"layers": "classifier"},
    "classifier and BatchNorm": {"layers": "classifier_bn"},
    "last block": {"layers": "last_blocks"},
}
STATISTICS, FRECHET, TEMPERATURE = "BatchNorm statistics, no labels", "Fréchet map, no labels", "temperature"
_NUM_FOR_TEMPERATURE = 100  # labelled pictures
_OPTIM = OptimConfig(batch_size=64)
_CHUNK = 50  # images or rows at once


class Measurement:
    """Measures a network on pictures.

    Args:
        network: in eval mode; its weights are the published ones before and after each call.
        pictures: tested in folds.
        config: epochs and learning rate of the fine-tunings.
        loader: further settings of `fixres.Loader`, such as the interpolation.
    """

    def __init__(
        self, network: PublishedNetwork, pictures: Pictures, config: FinetuneConfig, loader: dict[str, str]
    ) -> None:
        self._network, self._predictor, self._pictures = network, network.predictor, pictures
        self._config, self._loader = config, loader
        self._folds = [pictures.fold(number) for number in range(NUM_FOLDS)]
        self._reference = self._pooled(self._images(network.train_res), network.train_res)

    def at(self, test_res: int, finetuned: bool, last_block: bool = False) -> dict[str, Any]:
        """Figures at a test resolution.

        Args:
            test_res: in pixels.
            finetuned: add fine-tunings and adaptations for it.
            last_block: fine-tune the last block, too, if the network has blocks; it takes another pass.
        """
        gc.collect()  # features of the last resolution
        if not finetuned:
            images = self._images(test_res, tested_only=True)
            return self._untouched(test_res, self._pooled(images, test_res))
        images, further = self._images(test_res), self._pictures.further
        parts, rows = self._rows(images, test_res, "classifier and BatchNorm")
        pooled = self._inputs(parts.head, (chunk.float() for chunk in rows.split(_CHUNK)), test_res)
        found = self._untouched(test_res, pooled)
        tuned = [self._finetuned("classifier", test_res, self._split(test_res, "classifier"), pooled)]
        tuned.append(self._finetuned("classifier and BatchNorm", test_res, parts, rows))
        del rows
        if last_block and self._probe(test_res).blocks.modules:
            tuned.append(self._finetuned("last block", test_res, *self._rows(images, test_res, "last block")))
        with _restored(self._predictor.net):
            # The pictures lie in the order of their classes. Batches of similar classes cost 3.6 points of Lite0.
            mixed = np.random.default_rng(0).permutation(further)
            recalibrate(self._predictor, Rows(images, self._pictures.labels, mixed, test_res), len(further))
            logits = self._each(images[: self._pictures.num_tested], self._predictor, torch.float32)
        tuned.append(self._scored(STATISTICS, [logits] * NUM_FOLDS))
        tuned.append(self._scored(FRECHET, [self._frechet(pooled, test_res)] * NUM_FOLDS))
        tuned.append(self._tempered(self._classified(pooled, test_res)))
        return found | {"finetunings": tuned}

    def _untouched(self, test_res: int, pooled: Tensor) -> dict[str, Any]:
        tested = slice(self._pictures.num_tested)
        reference = pooled if test_res == self._network.train_res else self._reference
        statistics = statistics_of(test_res, pooled[tested].numpy(), reference[tested].numpy())
        logits = self._classified(pooled, test_res)
        kept = {name: getattr(statistics, name) for name in ("zero_share", "mean", "std", "distance")}
        return {"test_res": test_res, **self._scored("none", [logits] * NUM_FOLDS), "activations": kept}

    def _scored(self, name: str, logits: list[Tensor]) -> dict[str, Any]:
        """Figures of the logits of all pictures, one tensor for each fold."""
        labels = [self._pictures.labels[tested] for _, tested in self._folds]
        found = [one[tested] for one, (_, tested) in zip(logits, self._folds, strict=True)]
        return {"variant": name, **figures(found, labels)}

    def _finetuned(self, name: str, test_res: int, parts: SplitNetwork, rows: Tensor) -> dict[str, Any]:
        logits, labels = [], self._pictures.labels
        net, precision = self._predictor.net, self._predictor.precision
        config = replace(self._config, **LAYERS[name])
        for number, (chosen, _) in enumerate(self._folds):
            with _restored(net):
                freeze_except(net, trainable_layers(net, self._probe(test_res), config).modules)
                stepper = Stepper(create_optimizer(net, replace(_OPTIM, lr=config.lr)), precision)
                loss = CrossEntropy(_OPTIM.label_smoothing)
                loader = Rows(rows, labels, chosen, test_res, shuffle=True, seed=number)
                train_epochs(Trainer(parts.head, ToFloat(), stepper, loss, seed=number), loader, config)
                net.eval()
                logits.append(self._headed(parts, rows))
        return self._scored(name, logits)

    def _frechet(self, pooled: Tensor, test_res: int) -> Tensor:
        """Logits after the map of section 4.1; unchanged where the map does not bring the activations nearer."""
        from scipy.stats import wasserstein_distance

        test, train = (one[self._pictures.further].numpy().ravel() for one in (pooled, self._reference))
        line = matching_line(test, train)
        nearer = wasserstein_distance(line.slope * test + line.offset, train) < wasserstein_distance(test, train)
        return self._classified(line.slope * pooled + line.offset if nearer else pooled, test_res)

    def _tempered(self, logits: Tensor) -> dict[str, Any]:
        """Logits over the temperature that is best for a few labelled pictures of the fold's other part."""
        found, labels = [], self._pictures.labels
        for number, (chosen, _) in enumerate(self._folds):
            own = chosen[chosen < self._pictures.num_tested]  # the others may be training images
            few = np.random.default_rng(number).permutation(own)[:_NUM_FOR_TEMPERATURE]
            found.append(temperature(logits[few], labels[few]))
        return self._scored(TEMPERATURE, [logits / one for one in found]) | {"temperatures": found}

    def _images(self, test_res: int, tested_only: bool = False) -> Tensor:
        return self._pictures.images(test_res, self._network.crop_pct, tested_only, **self._loader)

    def _probe(self, test_res: int) -> NetworkProbe:
        return probe_network(self._predictor.net, test_res)

    def _split(self, test_res: int, name: str) -> SplitNetwork:
        net, precision = self._predictor.net, self._predictor.precision
        modules = trainable_layers(net, self._probe(test_res), replace(self._config, **LAYERS[name])).modules
        noise = torch.randn(2, 3, test_res, test_res, generator=torch.Generator().manual_seed(0))
        parts = split(net, modules, noise.to(precision.device), precision)
        parts.backbone.eval()
        return parts

    def _rows(self, images: Tensor, test_res: int, name: str) -> tuple[SplitNetwork, Tensor]:
        """The split network, and the backbone's output for all images, float16 (N, F)."""
        parts = self._split(test_res, name)
        return parts, self._each(images, self._predictor._replace(net=parts.backbone), torch.float16)

    def _pooled(self, images: Tensor, test_res: int) -> Tensor:
        """float32 (N, C): the classifier's input."""
        return self._inputs(self._predictor, images.split(_CHUNK), test_res)

    def _inputs(self, function: Any, chunks: Iterable[Tensor], test_res: int) -> Tensor:
        """The classifier's input while `function` is called with each chunk."""
        parts: list[Tensor] = []
        with inputs_of(self._probe(test_res).head.classifier) as caught, torch.inference_mode():
            for chunk in chunks:
                function(chunk)
                parts.append(pooled_input(caught, len(chunk)).cpu())
        return torch.cat(parts)

    def _classified(self, pooled: Tensor, test_res: int) -> Tensor:
        """Logits of pooled activations."""
        return self._each(pooled, self._probe(test_res).head.classifier, torch.float32)

    def _headed(self, parts: SplitNetwork, rows: Tensor) -> Tensor:
        return self._each(rows, lambda chunk: parts.head(chunk.float()), torch.float32)

    @staticmethod
    def _each(values: Tensor, function: Any, dtype: torch.dtype) -> Tensor:
        with torch.inference_mode():
            found = [function(chunk).to("cpu", dtype) for chunk in values.split(_CHUNK)]
        return torch.cat(found)


@contextmanager
def _restored(net: nn.Module) -> Iterator[None]:
    """Afterwards the network has the weights and statistics from before, without frozen layers, in eval mode."""
    before = copy.deepcopy(net.state_dict())
    try:
        yield
    finally:
        net.load_state_dict(before)
        net.requires_grad_(True)
        net.eval()
