"""FixRes: the last layers learn again at the test resolution (arXiv 1906.06423, section 4).

RandomResizedCrop shows objects larger in training than testing does, and another size changes the statistics of the
pooled activations. Testing larger mends the first; a short fine-tuning of the classifier and of the BatchNorm before
pooling, on training images cropped as in testing, mends the second.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fixres.config import FixConfig, OptimConfig
from fixres.hardware import Precision
from fixres.last_layers import freeze_all_but, last_layers
from fixres.models import Normalise
from fixres.optim import Stepper, create_optimizer
from fixres.schedule import lr_at, scaled_lr
from fixres.train import EpochResult, Trainer
from pipelines.spec import Loader


def finetune(
    net: nn.Module,
    normalise: Normalise,
    loader: Loader,
    config: FixConfig,
    optim: OptimConfig,
    precision: Precision,
) -> list[EpochResult]:
    """Fine-tunes the last layers of `net` in place on `loader`, whose crops are the test's.

    Args:
        net: a trained network.
        normalise: uint8 NHWC batches to its input.
        loader: training images, shuffled, cropped as in testing at the test resolution.
        config: epochs, learning rate, layers.
        optim: momentum, weight decay and label smoothing, as in training.
        precision: as in training.

    Returns:
        One result for each epoch. The network is in eval mode and all of it can learn again.
    """
    freeze_all_but(net, last_layers(net, loader.resolution), config.layers)
    try:
        stepper = Stepper(create_optimizer(net, replace(optim, lr=config.lr)), precision)
        trainer = Trainer(net, normalise, stepper, precision, optim.label_smoothing)
        peak = scaled_lr(config.lr, loader.batch_size)
        return [_epoch(trainer, loader, epoch, config.epochs, peak) for epoch in range(config.epochs)]
    finally:
        net.requires_grad_(True)
        net.eval()


def _epoch(trainer: Trainer, loader: Loader, epoch: int, epochs: int, peak: float) -> EpochResult:
    loader.set_epoch(epoch)
    title = f"fix at {loader.resolution} px, epoch {epoch + 1}/{epochs}"
    return trainer.epoch(loader, lambda done: lr_at(epoch + done, epochs, peak), title)
