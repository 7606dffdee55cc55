"""Regularization of an epoch: augmentation and dropout that grow with the resolution (arXiv 2104.00298, 4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from fixres.pipelines.spec import InputError

_HEADS = (
    "head",
    "head_drop",
    "classifier",
    "fc",
)  # timm's names of modules that hold the dropout before the classifier


def share_of(resolution: int, resolutions: Sequence[int]) -> float:
    """How far `resolution` is from the smallest (0) to the largest (1) of a schedule; 1 if there is only one."""
    low, high = min(resolutions), max(resolutions)
    return (resolution - low) / (high - low) if high > low else 1.0


def set_drop_rate(net: nn.Module, drop_rate: float) -> None:
    """Changes the dropout before the classifier of a timm network.

    Convolutional networks read the attribute `drop_rate` in each forward pass, others have a module for it.

    Raises:
        InputError: the network has neither.
    """
    heads = [module for name in _HEADS if isinstance(module := getattr(net, name, None), nn.Module)]
    dropouts = [module for head in heads for module in head.modules() if isinstance(module, nn.Dropout)]
    if not dropouts and not isinstance(getattr(net, "drop_rate", None), float | int):
        raise InputError(f"{type(net).__name__} has no dropout before its classifier; omit regularization.drop_rate")
    if hasattr(net, "drop_rate"):
        net.drop_rate = drop_rate
    for module in dropouts:
        module.p = drop_rate
