"""torch.compile for networks whose input changes its size a few times in a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipelines.spec import InputError

_MAX_RESOLUTIONS = 64


def compiled(net: nn.Module, choice: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What the training step calls: the network itself, or its compiled form, which shares its weights.

    Args:
        net: the network. Testing and saving use it as it is, so that weights keep their names.
        choice: "yes", "no", or "auto": on GPUs.
        device: where it runs.
    """
    if choice == "no" or (choice == "auto" and device.type != "cuda"):
        return net
    if device.type == "cpu" and shutil.which("g++") is None and shutil.which("c++") is None:
        raise InputError("compile=yes needs a C++ compiler on the CPU; install g++, or choose compile=no")
    # A graph for each resolution: one graph for all of them, with sizes as variables, gives up what fixed sizes allow.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_RESOLUTIONS)
    return torch.compile(net, dynamic=False)
