"""Compiles the CUDA kernels at run time with NVRTC, without a CUDA toolkit; torch's CUDA wheels bring all it needs.

Machine code is kept on disk, in the folder of the compiled CPU kernels, by a digest of the sources, the options and
the version of NVRTC.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from fixres.pipelines.runtime.atomic_files import atomic_file
from fixres.pipelines.spec import InputError

KERNELS = Path(__file__).parent / "kernels"
_MAIN = "decoder.cu"
# Fused multiply-add would change the weights of taps, which are computed in floating point, in their last digit.
_OPTIONS = ("--fmad=false", "--std=c++17", "--ptxas-options=-v")


class Resources(NamedTuple):
    """What a kernel takes of a multiprocessor."""

    num_registers: int
    """Of each thread."""
    shared_bytes: int
    """Of each block."""
    spilled_bytes: int
    """Stores and loads of registers that did not suffice."""


def machine_code(architecture: str) -> bytes:
    """The kernels' machine code (cubin) for an architecture such as "sm_90", from the disk or compiled.

    Raises:
        InputError: cuda.bindings or NVRTC is missing, or it does not know the architecture.
    """
    place = _cache_folder() / f"cuda-{_digest(architecture)}.cubin"
    size = hashlib.sha256().digest_size
    with contextlib.suppress(OSError):
        stored = place.read_bytes()
        if hashlib.sha256(stored[:-size]).digest() == stored[-size:]:
            return stored[:-size]
    code, _ = compile_kernels(architecture)
    with contextlib.suppress(OSError, InputError):  # the folder may be read-only
        with atomic_file(place, overwrite=True) as partial:
            partial.write_bytes(code + hashlib.sha256(code).digest())
    return code


def _cache_folder() -> Path:
    """The folder of the CPU kernels, or, where numba is missing, one that cannot be written."""
    try:
        from fixres.pipelines.runtime.numba_cache import cache_folder
    except ImportError:  # the check of a GPU runs with torch and numpy alone
        return Path("/dev/null")
    return cache_folder()


def compile_kernels(architecture: str, *more: str) -> tuple[bytes, dict[str, Resources]]:
    """Compiles the kernels, with more options of NVRTC; returns the machine code and each kernel's resources."""
    nvrtc = _nvrtc()
    sources = _sources()
    main = sources.pop(_MAIN)
    texts, names = list(sources.values()), [name.encode() for name in sources]
    program = _check(nvrtc.nvrtcCreateProgram(main, _MAIN.encode(), len(texts), texts, names))
    options = [option.encode() for option in (f"--gpu-architecture={architecture}", *_OPTIONS, *more)]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    log = b" " * _check(nvrtc.nvrtcGetProgramLogSize(program))
    _check(nvrtc.nvrtcGetProgramLog(program, log))
    if int(error):
        reason = log.decode(errors="replace").strip("\0 \n") or str(error)
        raise InputError(f"NVRTC cannot compile the decoder for {architecture}: {reason}; use --engine roc")
    code = b" " * _check(nvrtc.nvrtcGetCUBINSize(program))
    _check(nvrtc.nvrtcGetCUBIN(program, code))
    _check(nvrtc.nvrtcDestroyProgram(program))
    return code, _resources(log.decode(errors="replace"))


def _sources() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(KERNELS.iterdir()) if file.suffix in (".cu", ".cuh")}


def _digest(architecture: str) -> str:
    version = _check(_nvrtc().nvrtcVersion())
    digest = hashlib.sha256(repr((architecture, _OPTIONS, version)).encode())
    for name, text in _sources().items():
        digest.update(name.encode() + b"\0" + text + b"\0")
    return digest.hexdigest()[:20]


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc

        _check(nvrtc.nvrtcVersion())
    except Exception as error:  # cuda.bindings raises errors of several types if the library is missing
        raise InputError(
            "engine='roc-gpu' needs cuda.bindings and NVRTC, which the CUDA builds of torch install; "
            f"install one, or use --engine roc ({error})"
        ) from error
    return nvrtc


def _check(result: tuple) -> Any:
    """The value of a call of cuda.bindings."""
    error, *values = result
    if int(error):
        raise RuntimeError(f"NVRTC failed: {error}")
    return values[0] if len(values) == 1 else values


def _resources(log: str) -> dict[str, Resources]:
    """Reads what ptxas reports of each kernel."""
    found = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        spilled = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        assert spilled and registers, log
        total = int(spilled[1]) + int(spilled[2])
        found[part.partition("'")[0]] = Resources(int(registers[1]), int(shared[1]) if shared else 0, total)
    return found
