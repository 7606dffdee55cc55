"""FixRes: the last layers learn again at the test resolution (arXiv 1906.06423, section 4).

RandomResizedCrop shows objects larger in training than testing does, and another size changes the statistics of the
pooled activations. Testing larger mends the first; a short fine-tuning of the classifier and of the BatchNorm before
pooling, on training images cropped as in testing, mends the second.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.distributed.process_group import num_processes
from fixres.finetuning.color_jitter import Jittered
from fixres.finetuning.feature_cache import FeatureCache, description
from fixres.finetuning.row_store import NoRoomError
from fixres.finetuning.split_network import CannotSplitError, Split, split
from fixres.finetuning.trainable_layers import freeze_except, trainable_layers
from fixres.models.factory import Normalize
from fixres.models.precision import Precision
from fixres.observability.console import log
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.schedule import lr_at, scaled_lr, stepped_lr
from fixres.training.trainer import EpochResult, Trainer
from pipelines.spec import Crop, EvalCrop, Loader, ShiftCrop, TrainCrop


def finetune_crop(config: FinetuneConfig, crop_pct: float, train_crop: TrainCrop) -> Crop:
    """The crop that `config.augmentation` asks of the loader.

    Args:
        config: augmentation and hflip.
        crop_pct: the test's.
        train_crop: the training's.
    """
    if config.augmentation == "train":
        return train_crop
    if config.augmentation == "test_shift":
        return ShiftCrop(crop_pct, config.hflip)
    return EvalCrop(crop_pct, config.hflip if config.augmentation == "test_flip" else 0.0)


def finetune(
    net: nn.Module,
    normalize: Normalize,
    loader: Loader,
    config: FinetuneConfig,
    optim: OptimConfig,
    precision: Precision,
    seed: int = 0,
    open_plain: Callable[[], Loader] | None = None,
) -> list[EpochResult]:
    """Fine-tunes layers of `net` in place, and says in a line on stderr which.

    Args:
        net: a trained network.
        normalize: uint8 NHWC batches to its input.
        loader: training images, shuffled, at the test resolution, cropped by `finetune_crop`.
        config: what learns, how long and on what.
        optim: momentum, weight decay and label smoothing, as in training.
        precision: as in training.
        seed: the run's, for the color jitter and what layers draw by chance.
        open_plain: opens the same images in stored order, each once, cropped by the same `finetune_crop`; without it
        nothing
            is cached.

    Returns:
        One result for each epoch; evaluating the frozen layers for the cache counts to the first. The network is in
        eval mode and all of it can learn again.
    """
    chosen = trainable_layers(net, loader.resolution, config)
    freeze_except(net, chosen.modules)
    _log(chosen.why)
    smoothing = optim.label_smoothing if config.label_smoothing is None else config.label_smoothing
    try:
        stepper = Stepper(create_optimizer(net, replace(optim, lr=config.lr)), precision)
        cached = _cached(net, chosen.modules, normalize, loader, config, precision, open_plain)
        if cached is None:
            source = _augmented(loader, config, precision, seed)
            trainer = Trainer(net, normalize, stepper, precision, smoothing, seed=seed)
            return _epochs(trainer, source, config)
        halves, cache, seconds, waited = cached
        trainer = Trainer(halves.tail, _ToFloat(), stepper, precision, smoothing, seed=seed)
        results = _epochs(trainer, cache, config)
        first = replace(results[0], seconds=results[0].seconds + seconds, wait_seconds=waited)
        return [first, *results[1:]]
    finally:
        net.requires_grad_(True)
        net.eval()


def _epochs(trainer: Trainer, loader: Loader | FeatureCache, config: FinetuneConfig) -> list[EpochResult]:
    peak = scaled_lr(config.lr, loader.batch_size * num_processes())
    results = []
    for epoch in range(config.epochs):
        loader.set_epoch(epoch)
        trainer.set_epoch(epoch)
        title = f"fix at {loader.resolution} px, epoch {epoch + 1}/{config.epochs}"
        results.append(trainer.epoch(loader, lambda done, epoch=epoch: _lr(epoch + done, config, peak), title))
    return results


def _lr(epoch: float, config: FinetuneConfig, peak: float) -> float:
    if config.schedule == "step":
        return stepped_lr(epoch, peak, config.step_epochs)
    return lr_at(epoch, config.epochs, peak)


def _augmented(loader: Loader, config: FinetuneConfig, precision: Precision, seed: int) -> Loader:
    if config.augmentation != "test_shift" or config.jitter == 0:
        return loader
    return Jittered(loader, config.jitter, seed, precision.device)


def _cached(
    net: nn.Module,
    learning: tuple[nn.Module, ...],
    normalize: Normalize,
    loader: Loader,
    config: FinetuneConfig,
    precision: Precision,
    open_plain: Callable[[], Loader] | None,
) -> tuple[Split, FeatureCache, float, float] | None:
    """The halves, the filled cache, and what filling took; None where images must be evaluated in each epoch."""
    if not config.repeats or config.cache == "no" or open_plain is None or config.epochs < 1:
        return None
    try:
        halves = split(net, learning, _noise(loader.resolution, precision), precision)
        cache = FeatureCache(loader, halves.num_values, config)
    except (CannotSplitError, NoRoomError) as error:
        _log(f"frozen layers are evaluated in every epoch, because {error}")
        return None
    _log(description(cache, halves.num_values))
    plain = open_plain()
    try:
        return halves, cache, *cache.fill(halves, normalize, plain, precision)
    finally:
        plain.close()


def _noise(resolution: int, precision: Precision) -> torch.Tensor:
    """Two images, (2, 3, r, r) in channels_last: something to compare the halves with the network on."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, resolution, resolution, 3, generator=generator)
    return images.permute(0, 3, 1, 2).to(precision.device)


class _ToFloat(nn.Module):
    """Rows of the cache to what the tail takes, in place of normalization."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.float()


def _log(line: str) -> None:
    log(f"finetune: {line}")
