"""How large a network would be, before memory is taken for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from fixres.pipelines.spec import InputError

_MAX_MODULES = 10_000  # timm's networks have at most 2,600


def count_values(build: Callable[[], nn.Module]) -> int:
    """The number of values in weights and buffers of the network that `build` makes; see `without_values`."""
    net = without_values(build)
    return sum(tensor.numel() for tensor in (*net.parameters(), *net.buffers()))


def without_values(build: Callable[[], nn.Module]) -> nn.Module:
    """The network that `build` makes on torch's device "meta", whose tensors have no values: little memory and time.

    Raises:
        InputError: it has more than 10,000 modules.
    """
    with torch.random.fork_rng(devices=[]), _few_modules(), torch.device("meta"):
        return build()


@contextmanager
def _few_modules() -> Iterator[None]:
    """Inside the block, networks with too many modules stop being built."""
    count = 0

    def register(*_: object) -> None:
        nonlocal count
        count += 1
        if count > _MAX_MODULES:
            raise InputError(f"the network has more than {_MAX_MODULES} modules; choose a smaller one")

    hook = register_module_module_registration_hook(register)
    try:
        yield
    finally:
        hook.remove()
