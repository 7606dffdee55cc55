"""torch.compile for networks whose input changes its size a few times in a run."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fixres.observability.console import log
from pipelines.spec import InputError

_MAX_RESOLUTIONS = 64


def compiled(net: nn.Module, choice: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """What the training step calls: the network itself, or its compiled form, which shares its weights.

    Args:
        net: the network. Testing and saving use it as it is, so that weights keep their names.
        choice: "yes", "no", or "auto": on GPUs, if what that needs is there.
        device: where it runs.

    Raises:
        InputError: "yes", and what it needs is missing.
    """
    if choice == "no" or (choice == "auto" and device.type != "cuda"):
        return net
    if missing := _missing(device):
        if choice == "yes":
            raise InputError(f"compile=yes needs {missing}, or choose compile=no")
        log(f"the network is not compiled, which needs {missing}")
        return net
    # A graph for each resolution: one graph for all of them, with sizes as variables, gives up what fixed sizes allow.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_RESOLUTIONS)
    return torch.compile(net, dynamic=False)


def _missing(device: torch.device) -> str | None:
    """What torch builds code with and does not find, and the remedy; it tells at the first step, in a traceback."""
    if device.type == "cpu":
        there = shutil.which("g++") or shutil.which("c++")
        return None if there else "a C++ compiler on the CPU; install g++"
    # On GPUs Triton builds a small module of Python's, looking as it is looked for here.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler; install gcc"
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    there = (Path(sysconfig.get_path("include", scheme)) / "Python.h").exists()
    return None if there else "Python's headers; install python3-dev"
