"""Checks before a FixRes fine-tuning, so that mistakes are found before the training or the tests that precede it."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.distributed.process_group import num_processes
from fixres.distributed.sync_batchnorm import SyncBatchNorm2d
from fixres.finetuning.trainable_layers import trainable_layers
from fixres.models.probe import NetworkProbe, probe_network
from fixres.observability.console import log
from fixres.pipelines.spec import InputError, Loader

_SYNCHRONIZED = (SyncBatchNorm2d, nn.SyncBatchNorm)  # over the images of all processes


def probe_for_finetune(net: nn.Module, resolution: int) -> NetworkProbe:
    """Probes the network; logs a line if the resolution is not a multiple of the stride."""
    probe = probe_network(net, resolution)
    stride = probe.stride
    if resolution % stride:
        near = f"{resolution // stride * stride or stride} or {(resolution // stride + 1) * stride}"
        log(
            f"finetune: {resolution} px is not a multiple of the stride, {stride} px: {probe.name} pads the borders; "
            f"with {near} px all pixels count alike"
        )
    return probe


def check_finetune(
    net: nn.Module, probe: NetworkProbe, loader: Loader, config: FinetuneConfig, optim: OptimConfig
) -> None:
    """Raises InputError if the fine-tuning for the resolution of `probe` on the images of `loader` would fail."""
    _check_batches(loader, config, optim)
    if config.cache_dir is not None and not config.cache_dir.is_dir():
        raise InputError(f"finetune.cache_dir={config.cache_dir} is not a folder; create it, or choose another")
    if config.epochs:
        num_images = (config.batch_size or optim.batch_size) // num_processes()
        _check_statistics(probe, trainable_layers(net, probe, config).modules, num_images)
    if config.adapt == "frechet" and probe.head.classifier.bias is None:
        raise InputError("finetune.adapt=frechet needs a classifier with bias; use finetune.adapt=batchnorm")


def _check_batches(loader: Loader, config: FinetuneConfig, optim: OptimConfig) -> None:
    size = optim.batch_size if config.batch_size is None else config.batch_size
    name = "optim.batch_size" if config.batch_size is None else "finetune.batch_size"
    if size > loader.num_samples:
        raise InputError(f"{name}={size} is larger than the number of training images, {loader.num_samples}; lower it")
    if size % num_processes():
        raise InputError(f"{name}={size} is not divisible by {num_processes()} processes; use a multiple of them")
    if config.augmentation == "test_shift" and not loader.shares_boxes:
        raise InputError(
            "finetune.augmentation=test_shift: this engine draws its own crops and cannot shift them; choose "
            "data.engine roc or torch, or test_flip"
        )


def _check_statistics(probe: NetworkProbe, trainable: tuple[nn.Module, ...], num_images: int) -> None:
    """A single value of a channel has no variance."""
    alone = [one for one in trainable if isinstance(one, _BatchNorm) and not isinstance(one, _SYNCHRONIZED)]
    fewest = min((probe.values_per_channel.get(id(norm), 2) for norm in alone), default=2)
    if num_images * fewest < 2:
        raise InputError("BatchNorm cannot learn from 1 image at a time; raise finetune.batch_size")
