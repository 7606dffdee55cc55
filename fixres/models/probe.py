"""Running a network on one black image to learn about it: sizes it takes, stride, blocks, head, operations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.models.blocks import Blocks, Call, find_blocks, recorded_calls
from fixres.models.factory import Normalize
from fixres.models.head import Head, find_head
from fixres.pipelines.spec import InputError

_USUAL_STRIDE = 32


@dataclass(frozen=True)
class NetworkProbe:
    """What one forward pass at one resolution (pixels) tells about a network.

    Attributes:
        name: the network's class.
        stride: pixels of the image for one of the last feature map.
        found_head: None if the logits do not come from a linear layer.
        values_per_channel: for each BatchNorm that runs, the fewest values of a channel that one image gives it; the
            key is its id.
    """

    name: str
    resolution: int
    stride: int
    blocks: Blocks
    found_head: Head | None
    values_per_channel: dict[int, int]

    @property
    def head(self) -> Head:
        """The head. Raises InputError if the logits do not come from a linear or convolutional layer."""
        if self.found_head is None:
            raise InputError(
                f"{self.name}: its logits do not come from a linear layer; FixRes needs a linear classifier"
            )
        return self.found_head


def probe_network(net: nn.Module, resolution: int) -> NetworkProbe:
    """Runs one black image of side `resolution` through `net`; modes, gradients and hooks are as before afterwards."""
    with eval_mode(net, gradients=True), recorded_calls(net) as calls:
        logits = _forward(net, resolution)
        head = find_head(net, logits)
    found, values = find_blocks(net, calls), _values_per_channel(calls)
    return NetworkProbe(type(net).__name__, resolution, stride_of(net), found, head, values)


def _values_per_channel(calls: list[Call]) -> dict[int, int]:
    fewest: dict[int, int] = {}
    for call in calls:
        if isinstance(call.module, _BatchNorm):
            values, key = call.inputs[0], id(call.module)
            num = values.numel() // values.shape[1]
            fewest[key] = min(num, fewest.get(key, num))
    return fewest


def check_takes(net: nn.Module, resolution: int) -> None:
    """Raises InputError if the network cannot take images of side `resolution`."""
    with eval_mode(net):
        _forward(net, resolution)


def num_logits(net: nn.Module, resolution: int) -> int:
    """The number of classes. InputError as `check_takes`, and if the output is not a row for each image."""
    with eval_mode(net):
        logits = _forward(net, resolution)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"{type(net).__name__} gives {found} for one image, not (1, number of classes); give a module that returns "
            "logits only"
        )
    return logits.shape[1]


def device_of(net: nn.Module) -> torch.device:
    """The device of the first parameter; the CPU for a network without parameters."""
    return next((parameter.device for parameter in net.parameters()), torch.device("cpu"))


def _forward(net: nn.Module, resolution: int) -> Tensor:
    dtype = next((parameter.dtype for parameter in net.parameters()), torch.float32)
    try:
        return net(torch.zeros(1, 3, resolution, resolution, device=device_of(net), dtype=dtype))
    except (RuntimeError, AssertionError, ValueError, TypeError, LookupError) as error:
        raise InputError(
            f"{type(net).__name__} does not take {resolution} px ({' '.join(str(error).split())[:120]}); "
            "choose another resolution, or give the network this input size"
        ) from error


@contextmanager
def eval_mode(net: nn.Module, gradients: bool = False) -> Iterator[None]:
    """Inside the block all modules are in eval mode, and no parameter, or each with `gradients`, gets a gradient.

    Afterwards modes and gradients are as before.
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


def stride_of(net: nn.Module) -> int:
    """Pixels of the image for one of the last feature map; 32, as most networks have, if timm does not know it."""
    patch = getattr(getattr(net, "patch_embed", None), "patch_size", None)
    if patch:
        return int(patch[0])
    features = getattr(net, "feature_info", None) or [{}]
    try:
        return max(int(one.get("reduction", _USUAL_STRIDE)) for one in features)
    except (AttributeError, TypeError, ValueError):
        return _USUAL_STRIDE


def forward_flops(net: nn.Module, normalize: Normalize, resolution: int) -> int:
    """Operations of one image of side `resolution`, counted by torch: a multiplication and an addition are two.

    Two images run, because BatchNorm in training mode needs them if its feature map has one position.
    """
    from torch.utils.flop_counter import FlopCounterMode

    device = device_of(net)
    images = torch.zeros(2, resolution, resolution, 3, dtype=torch.uint8, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(normalize(images))
    return counter.get_total_flops() // 2
