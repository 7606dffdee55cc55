"""What would end a fix in a mistake, found before the training or the tests that it follows are paid for."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.config.recipe import FinetuneConfig, OptimConfig
from fixres.distributed.process_group import num_processes
from fixres.distributed.sync_batchnorm import SyncBatchNorm2d
from fixres.finetuning.trainable_layers import trainable_layers
from fixres.models.head import last_layers
from fixres.models.probe import as_it_was, black_image
from pipelines.spec import InputError, Loader

_SYNCHRONISED = (SyncBatchNorm2d, nn.SyncBatchNorm)  # over the images of all processes


def check_finetune(net: nn.Module, loader: Loader, config: FinetuneConfig, optim: OptimConfig, resolution: int) -> None:
    """Raises InputError if the fix could not be begun or gone through with.

    Args:
        net: the network, trained or not.
        loader: of the training images; its engine and their number count.
        config: the fix.
        optim: of the training, for the batch size.
        resolution: test resolution in pixels.
    """
    size = optim.batch_size if config.batch_size is None else config.batch_size
    name = "optim.batch_size" if config.batch_size is None else "finetune.batch_size"
    if size > loader.num_samples:
        raise InputError(f"{name}={size} is more than a fix has, {loader.num_samples} training images; lower it")
    if size % num_processes():
        raise InputError(f"{name}={size} does not divide among {num_processes()} processes; use a multiple of them")
    if config.augmentation == "test_shift" and not loader.shares_boxes:
        raise InputError(
            "finetune.augmentation=test_shift: this engine draws its own crops and cannot shift them; choose "
            "data.engine roc or torch, or test_flip"
        )
    if config.cache_dir is not None and not config.cache_dir.is_dir():
        raise InputError(f"finetune.cache_dir={config.cache_dir} is no folder; make it, or choose another")
    if config.epochs:
        _check_statistics(net, trainable_layers(net, resolution, config).modules, size // num_processes(), resolution)
    if config.adapt == "frechet" and last_layers(net, resolution).classifier.bias is None:
        raise InputError("finetune.adapt=frechet needs a classifier with bias; use finetune.adapt=batchnorm")


def _check_statistics(net: nn.Module, learning: Iterable[nn.Module], num_images: int, resolution: int) -> None:
    """A BatchNorm has no variance of a single value."""
    if num_images > 1:
        return
    fewest: list[int] = []

    def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        fewest.append(inputs[0].numel() // inputs[0].shape[1])

    alone = [one for one in learning if isinstance(one, _BatchNorm) and not isinstance(one, _SYNCHRONISED)]
    hooks = [module.register_forward_pre_hook(note) for module in alone]
    try:
        with as_it_was(net):
            net(black_image(net, resolution))
    finally:
        for hook in hooks:
            hook.remove()
    if min(fewest, default=2) < 2:
        raise InputError("BatchNorm cannot learn from 1 image at a time; raise finetune.batch_size")
