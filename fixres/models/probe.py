"""Running a network once to learn about it, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipelines.spec import InputError


@contextmanager
def as_it_was(net: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Eval mode everywhere inside the block; afterwards modes and gradients as before.

    Args:
        net: the network.
        gradients: give every parameter a gradient inside the block.
    """
    modes = [(module, module.training) for module in net.modules()]
    frozen = [parameter for parameter in net.parameters() if not parameter.requires_grad]
    if gradients:
        net.requires_grad_(True)
    net.eval()
    try:
        with torch.set_grad_enabled(gradients):
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        for module, mode in modes:
            module.training = mode


def black_image(net: nn.Module, resolution: int) -> Tensor:
    """Zeros (1, 3, r, r) of the network's number format, on its device."""
    parameter = next(net.parameters())
    return torch.zeros(1, 3, resolution, resolution, device=parameter.device, dtype=parameter.dtype)


def check_takes(net: nn.Module, resolution: int) -> None:
    """Raises InputError if the network cannot take images of side `resolution`."""
    try:
        with as_it_was(net):
            net(black_image(net, resolution))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"{type(net).__name__} does not take {resolution} px ({' '.join(str(error).split())[:120]}); "
            "choose another resolution, or give the network this input size"
        ) from error


def stride_of(net: nn.Module) -> int:
    """Pixels of the image for one of the last feature map, where timm tells; else 32, as most networks have."""
    told = getattr(net, "feature_info", None) or [{}]
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if patch:
        return int(patch[0])
    try:
        return max(int(one.get("reduction", 32)) for one in told)
    except (AttributeError, TypeError, ValueError):
        return 32
