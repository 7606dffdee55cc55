"""The device and the number format of a network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from fixres.config.checks import check_device
from fixres.pipelines.spec import InputError

_PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def choose_device(name: str) -> torch.device:
    """The device `name` ("cpu", "cuda", "cuda:1") or, for "auto", the GPU if there is one."""
    check_device(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device={name!r}: no CUDA device is visible; use --device cpu, or check nvidia-smi")
    if device.type == "cuda" and (device.index or 0) >= (number := torch.cuda.device_count()):
        last = f"cuda:{number - 1}" if number > 1 else "cuda"
        raise InputError(f"device={name!r}: this machine has {number} GPUs, the last is {last}; use another")
    return device


@dataclass(frozen=True)
class Precision:
    """Automatic mixed precision on one device."""

    name: str  # "fp32", "bf16" or "fp16"
    device: torch.device

    def autocast(self) -> AbstractContextManager:
        """The context for forward and loss; parameters and their gradients stay fp32."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.name == "bf16" else torch.float16)

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling, active in fp16 only (arXiv 1812.01187, section 3.2)."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def choose_precision(name: str, device: torch.device, net: nn.Module | None = None) -> Precision:
    """`name`, or for "auto" the fastest that trains as well: bf16 where the hardware computes with it, else fp32.

    On CPUs with AMX it trains ResNets 2 to 4 times faster. With AVX512-BF16 but without AMX it trains ResNets and
    vision transformers 1.2 to 1.8 times faster, networks of depthwise convolutions 1.3 to 1.8 times slower, because
    their backward pass is. On other CPUs it costs more than it saves.

    Args:
        name: "auto", "fp32", "bf16" or "fp16".
        device: where the network computes.
        net: the network, with or without values; if None, "auto" counts on depthwise convolutions.
    """
    if name not in _PRECISIONS:
        raise InputError(f"precision={name!r} is unknown; use {', '.join(_PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise InputError("precision=fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if name != "auto":
        return Precision(name, device)
    if device.type == "cuda":
        return Precision("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16", device)
    is_fast = _has("amx_tile") or (_has("avx512_bf16") and net is not None and not _has_depthwise(net))
    return Precision("bf16" if is_fast else "fp32", device)


def _has(feature: str) -> bool:
    """Whether torch uses a feature of the CPU; it tells by private functions."""
    return getattr(torch.cpu, f"_is_{feature}_supported", lambda: False)()


def _has_depthwise(net: nn.Module) -> bool:
    convolutions = (module for module in net.modules() if isinstance(module, nn.Conv2d))
    return any(one.groups == one.in_channels > 1 for one in convolutions)
