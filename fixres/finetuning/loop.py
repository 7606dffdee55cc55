"""FixRes fine-tuning: the last layers are trained again at the test resolution (arXiv 1906.06423, section 4).

RandomResizedCrop shows objects larger in training than testing does, and another image size changes the statistics of
the pooled activations. A larger test resolution corrects the first. The second is corrected by a short fine-tuning of
the classifier and of the BatchNorm before pooling, on training images cropped as in testing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from fixres.augment.batch_transform import BatchTransform
from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.distributed.process_group import num_processes, share_state
from fixres.finetuning.adaptation import adapt
from fixres.finetuning.color_jitter import Jittered
from fixres.finetuning.feature_cache import FeatureCache, NoRoomError
from fixres.finetuning.split_network import CannotSplitError, SplitNetwork, split
from fixres.finetuning.trainable_layers import freeze_except, trainable_layers
from fixres.models.precision import Precision
from fixres.models.predictor import Predictor, images_at_once
from fixres.models.probe import NetworkProbe
from fixres.observability.console import log
from fixres.pipelines.spec import Crop, EvalCrop, Loader, ShiftCrop, TrainCrop
from fixres.training.losses import OfChosen, label_loss
from fixres.training.optimizer import Stepper, create_optimizer
from fixres.training.progress import EpochResult
from fixres.training.schedule import lr_at, scaled_lr, stepped_lr
from fixres.training.trainer import Trainer


@dataclass(frozen=True)
class FinetuneContext:
    """What all fine-tunings of a network share.

    Attributes:
        open_train: opens the training images. Takes `crop`, `resolution`, `batch_size` over all processes, `shuffle`
            and `drop_last`.
        train_res: training resolution in pixels.
        optim: batch size, momentum, weight decay and label smoothing, as in training.
        seed: of the color jitter, and of layers that draw random numbers.
    """

    predictor: Predictor
    open_train: Callable[..., Loader]
    eval_crop: EvalCrop
    train_crop: TrainCrop
    train_res: int
    optim: OptimConfig
    seed: int

    def open(self, config: FinetuneConfig, resolution: int, crop: Crop | None = None, shuffle: bool = True) -> Loader:
        """Opens the training images for a fine-tuning, with `crop` instead of that of `config.augmentation`.

        With `shuffle` in random order without the short last batch, else in stored order with it.
        """
        return self.open_train(
            crop=crop or self._crop(config),
            resolution=resolution,
            batch_size=config.batch_size or self.optim.batch_size,
            shuffle=shuffle,
            drop_last=shuffle,
        )

    def _crop(self, config: FinetuneConfig) -> Crop:
        if config.augmentation == "train":
            return self.train_crop
        if config.augmentation == "test_shift":
            return ShiftCrop(self.eval_crop.crop_pct, config.hflip, self.eval_crop.interpolation)
        return replace(self.eval_crop, hflip=config.hflip if config.augmentation == "test_flip" else 0.0)


@dataclass(frozen=True)
class FinetuneResult:
    """A fine-tuning for one resolution.

    Attributes:
        layers: which layers were trained, in words.
        adaptation: what the label-free adaptation did; empty without one.
        epochs: losses and times. Filling the cache counts to the first epoch.
        seconds: wall time of adaptation and fine-tuning, opening loaders included.
    """

    layers: str
    adaptation: str
    epochs: list[EpochResult]
    seconds: float


def finetune(context: FinetuneContext, config: FinetuneConfig, probe: NetworkProbe) -> FinetuneResult:
    """Adapts and fine-tunes the network in place for the test resolution of `probe`, over all processes.

    Afterwards the network is in eval mode and all its parameters have gradients.
    """
    start = time.perf_counter()
    adaptation = _adapt(context, config, probe) if config.adapt != "none" else ""
    layers, epochs = "no layer was trained", []
    if config.epochs:
        chosen = trainable_layers(context.predictor.net, probe, config)
        _log(chosen.why)
        with closing(context.open(config, probe.resolution)) as loader:
            layers, epochs = chosen.why, _train(context, config, loader, chosen.modules)
    return FinetuneResult(layers, adaptation, epochs, time.perf_counter() - start)


def _adapt(context: FinetuneContext, config: FinetuneConfig, probe: NetworkProbe) -> str:
    crop = replace(context.eval_crop, hflip=0.0)
    with closing(context.open(config, probe.resolution, crop)) as loader:
        line = adapt(context.predictor, loader, config, context.train_res, probe)
    share_state(context.predictor.net)  # each process has adapted to its own images
    _log(line)
    return line


def _train(
    context: FinetuneContext, config: FinetuneConfig, loader: Loader, trainable: tuple[nn.Module, ...]
) -> list[EpochResult]:
    """Trains the modules `trainable` for all epochs."""
    (net, normalize, precision, outputs), optim = context.predictor, config.optimizer(context.optim)
    freeze_except(net, trainable)
    if config.layers == "all":
        net.train()  # with dropout and stochastic depth, as in training
    loss = label_loss(optim) if outputs is None else OfChosen(label_loss(optim), outputs)
    try:
        stepper = Stepper(create_optimizer(net, optim), precision)
        cached = _cached(context, config, loader, trainable)
        if cached is None:
            jittered = config.augmentation == "test_shift" and config.jitter > 0
            source = Jittered(loader, config.jitter, context.seed, precision.device) if jittered else loader
            parts = _in_pieces(context, config, loader, trainable)
            if parts is not None:
                net, normalize = parts.head, _Frozen(context.predictor._replace(net=parts.backbone))
            transform = BatchTransform(config.augment, len(loader.classes), context.seed) if config.augment else None
            trainer = Trainer(net, normalize, stepper, loss, transform=transform, seed=context.seed)
            return train_epochs(trainer, source, config)
        parts, cache, seconds, waited = cached
        trainer = Trainer(parts.head, ToFloat(), stepper, loss, seed=context.seed)
        first, *others = train_epochs(trainer, cache, config)
        return [replace(first, seconds=first.seconds + seconds, wait_seconds=waited), *others]
    finally:
        net.requires_grad_(True)
        net.eval()


def train_epochs(trainer: Trainer, loader: Loader | FeatureCache, config: FinetuneConfig) -> list[EpochResult]:
    """All epochs of a fine-tuning with the learning rates of `config`, on images or on a head's rows."""
    peak = scaled_lr(config.lr, loader.batch_size * num_processes())
    results = []
    for epoch in range(config.epochs):
        loader.set_epoch(epoch)
        trainer.set_epoch(epoch)
        title = f"finetune at {loader.resolution} px, epoch {epoch + 1}/{config.epochs}"
        results.append(trainer.epoch(loader, partial(_lr, config, peak, epoch), title))
    return results


def _lr(config: FinetuneConfig, peak: float, epoch: int, done: float) -> float:
    """The learning rate after the fraction `done` of an epoch."""
    if config.schedule == "step":
        return stepped_lr(epoch + done, peak, config.step_epochs)
    return lr_at(epoch + done, config.epochs, peak, config.warmup_epochs)


def _cached(
    context: FinetuneContext, config: FinetuneConfig, loader: Loader, trainable: tuple[nn.Module, ...]
) -> tuple[SplitNetwork, FeatureCache, float, float] | None:
    """The split network, the filled cache, and its seconds in all and of waiting; None if nothing can be cached."""
    if not config.repeats or config.cache == "no":
        return None
    try:
        parts = _split(context, loader, trainable)
        cache = FeatureCache(loader, parts.num_values, config)
    except (CannotSplitError, NoRoomError) as error:
        _log(f"frozen layers are evaluated in every epoch, because {error}")
        return None
    _log(f"frozen layers are evaluated once: {cache}")
    with closing(context.open(config, loader.resolution, shuffle=False)) as plain:
        return parts, cache, *cache.fill(context.predictor._replace(net=parts.backbone), plain)


def _in_pieces(
    context: FinetuneContext, config: FinetuneConfig, loader: Loader, trainable: tuple[nn.Module, ...]
) -> SplitNetwork | None:
    """The split network if its frozen layers are to process a batch in pieces; None: the network takes whole batches.

    On a CPU pieces take less memory and time (see `Predictor`); only batches larger than a piece need them.
    """
    is_cpu, res = context.predictor.precision.device.type == "cpu", loader.resolution
    if not is_cpu or config.layers == "all" or loader.batch_size <= images_at_once(res, res):
        return None
    try:
        return _split(context, loader, trainable)
    except CannotSplitError:
        return None


def _split(context: FinetuneContext, loader: Loader, trainable: tuple[nn.Module, ...]) -> SplitNetwork:
    """Both parts of the network; the backbone is in eval mode, as all that is frozen."""
    net, precision = context.predictor.net, context.predictor.precision
    parts = split(net, trainable, _noise(loader.resolution, precision), precision)
    parts.backbone.eval()  # a new module is in training mode; those inside are the network's
    return parts


def _noise(resolution: int, precision: Precision) -> torch.Tensor:
    """Two images of random numbers, (2, 3, r, r) in channels_last, on which `split` compares both networks."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, resolution, resolution, 3, generator=generator)
    return images.permute(0, 3, 1, 2).to(precision.device)


class ToFloat(nn.Module):
    """Converts cached rows to the head's input; takes the place of normalization."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.float()


class _Frozen(nn.Module):
    """The frozen layers' rows for a batch of images; takes the place of normalization before the head."""

    def __init__(self, backbone: Predictor) -> None:
        super().__init__()
        self._backbone = backbone

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return self._backbone(images)


def _log(line: str) -> None:
    log(f"finetune: {line}")
