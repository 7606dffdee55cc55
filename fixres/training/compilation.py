"""torch.compile for networks whose input size changes a few times in a run."""

from __future__ import annotations

import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fixres.observability.console import log
from fixres.pipelines.spec import InputError

_MAX_RESOLUTIONS = 64


def compiled(net: nn.Module, choice: str, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network itself, or its compiled form, which shares its weights; for the training step.

    Evaluation and saving use the network uncompiled, so that weights keep their names.

    Args:
        choice: "yes" (InputError if a compiler is missing), "no", or "auto": on GPUs, if a compiler is installed.
    """
    if choice == "no" or (choice == "auto" and device.type != "cuda"):
        return net
    if missing := _missing(device):
        if choice == "yes":
            raise InputError(f"compile=yes needs {missing}, or choose compile=no")
        log(f"the network is not compiled; this needs {missing}")
        return net
    # One graph for each resolution: a single graph with variable sizes would be slower.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MAX_RESOLUTIONS)
    return torch.compile(net, dynamic=False)


def _missing(device: torch.device) -> str | None:
    """A missing tool that torch builds code with, and how to install it. torch itself fails only at the first step."""
    if device.type == "cpu":
        found = shutil.which("g++") or shutil.which("c++")
        return None if found else "a C++ compiler on the CPU; install g++"
    # On GPUs Triton builds a small Python module; it searches the same places.
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler; install gcc"
    scheme = sysconfig.get_default_scheme().replace("posix_local", "posix_prefix")
    found = (Path(sysconfig.get_path("include", scheme)) / "Python.h").exists()
    return None if found else "Python's headers; install python3-dev"
