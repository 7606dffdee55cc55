"""The device and the number format of a network."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

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


def choose_precision(name: str, device: torch.device) -> Precision:
    """`name`, or for "auto" the fastest that trains as well: bf16 on GPUs and on CPUs with AMX, else fp32.

    On CPUs without AMX bf16 autocast costs more than it saves; with AMX it trains ResNets 2 to 4 times faster.
    """
    if name not in _PRECISIONS:
        raise InputError(f"precision={name!r} is unknown; use {', '.join(_PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise InputError("precision=fp16 needs a GPU; use bf16 or fp32 on the CPU")
    if name != "auto":
        return Precision(name, device)
    if device.type == "cuda":
        return Precision("bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16", device)
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return Precision("bf16" if has_amx else "fp32", device)
