"""Running a network on one black image to learn about it: sizes it takes, stride, blocks, head, operations."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fixres.models.blocks import Blocks, Call, find_blocks, recorded_calls
from fixres.models.factory import Normalize
from fixres.models.head import Head, find_head
from fixres.pipelines.spec import InputError

_USUAL_STRIDE = 32
_SIZE_ARGUMENTS = (
    "img_size", "window_size", "transformer_window_size", "transformer_grid_size", "transformer_partition_ratio"
)  # fmt: skip


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


def takes(net: nn.Module, resolution: int) -> bool:
    """Whether the network takes images of side `resolution` as it is."""
    try:
        check_takes(net, resolution)
    except InputError:
        return False
    return True


def set_input_size(net: nn.Module, resolution: int, always: bool = False) -> bool:
    """Prepares a network with position embeddings for images of side `resolution`, in place; True if it changed.

    timm's `set_input_size` does it: position embeddings are resampled to the new grid of patches, and windows grow with
    the image, with their relative position biases. The changed weights are new parameters, so an optimizer must be made
    afterwards. Networks that take the size as they are stay unchanged.

    Args:
        net: a network of timm's; others stay unchanged if they take the size.
        resolution: pixels.
        always: also change a network that resamples its embeddings in each forward pass.

    Raises:
        InputError: it takes no images of this size.
    """
    has_size = hasattr(net, "set_input_size")
    if not has_size or (input_size(net) == resolution if always else takes(net, resolution)):
        check_takes(net, resolution)
        return False
    if resolution % (stride := _patch_side(net)):
        near = f"{resolution // stride * stride or stride} or {(resolution // stride + 1) * stride}"
        raise InputError(
            f"{type(net).__name__} has patches of {stride} px, so {resolution} px do not fit; use {near} px"
        )
    try:
        net.set_input_size(img_size=resolution)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{type(net).__name__} cannot be set to {resolution} px ({reason}); choose another resolution"
        ) from error
    check_takes(net, resolution)
    return True


def sized(net: nn.Module, resolution: int) -> nn.Module:
    """The network if it takes images of side `resolution`, else a copy for them; InputError as `set_input_size`."""
    if hasattr(net, "set_input_size") and not takes(net, resolution):
        net = copy.deepcopy(net)
    set_input_size(net, resolution)
    return net


def input_size(net: nn.Module) -> int:
    """Side in pixels of the images that a network of timm's was made for or set to."""
    from timm.models import get_model_input_config

    return (getattr(getattr(net, "patch_embed", None), "img_size", None) or get_model_input_config(net)["input_size"])[
        -1
    ]


def size_arguments(net: nn.Module) -> dict[str, Any]:
    """Arguments of timm.create_model that make a network with the position embeddings and windows of this one."""
    from timm.models import get_model_args

    found = {name: value for name, value in get_model_args(net).items() if name in _SIZE_ARGUMENTS}
    return {name: _plain(value) for name, value in found.items()} if hasattr(net, "set_input_size") else {}


def _plain(value: Any) -> Any:
    """A size as a checkpoint holds it: one number if all are the same."""
    if isinstance(value, tuple | list):
        items = [_plain(item) for item in value]
        return items[0] if len(items) > 0 and items.count(items[0]) == len(items) else items
    return value


class SavedWeights:
    """A network's weights and input size, to which it can be set back."""

    def __init__(self, net: nn.Module) -> None:
        self._net, self._weights = net, copy.deepcopy(net.state_dict())
        self._size = input_size(net) if hasattr(net, "set_input_size") else None

    def restore(self) -> None:
        """Sets the network back."""
        if self._size is not None:
            set_input_size(self._net, self._size, always=True)
        self._net.load_state_dict(self._weights)


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
            f"{type(net).__name__} does not take {resolution} px ({' '.join(str(error).split())[:120]}); {_remedy(net)}"
        ) from error


def _remedy(net: nn.Module) -> str:
    if getattr(net, "dynamic_img_size", None) is False:
        return "in a recipe set model.kwargs.dynamic_img_size to true; timm's set_input_size changes its size"
    return "choose another resolution, or give the network this input size"


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


def _patch_side(net: nn.Module) -> int:
    """Pixels of a patch; 1 for networks without patches."""
    return int((getattr(getattr(net, "patch_embed", None), "patch_size", None) or (1,))[0])


def stride_of(net: nn.Module) -> int:
    """Pixels of the image for one of the last feature map; 32, as most networks have, if timm does not know it."""
    if (patch := _patch_side(net)) > 1:
        return patch
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
