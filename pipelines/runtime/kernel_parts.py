"""Kernels that other kernels call are compiled only as far as their callers need them.

numba makes a program of its own of each function: with a wrapper for calls from Python, optimized, as machine code. A
caller contains all that it calls, so it is optimized and translated again. Compiling the decoder took 20.7 s of a core;
without the programs of its parts it takes 10, and runs as fast. So a kernel has a second dispatcher, which its callers
get and which ends before that. The first one is as numba made it, for calls from Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numba
from numba import njit, types
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock
from numba.core.cpu import CPUContext, _dynfunc

_kept: list[Any] = []  # numba's environments of parts, which it finds by weak references
_TESTED = (0, 68)  # this replaces functions inside numba, so other versions compile as numba does, which takes longer


def give_callers_a_part(compiled: Any, function: Callable[..., Any], cache: Any = None, **options: bool) -> None:
    """Lets kernels that call `compiled`, numba's dispatcher of `function`, link a version without machine code.

    With a cache, a later process takes the version from there instead of compiling it.
    """
    if numba.version_info.short != _TESTED:
        return
    part = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **options)(function)
    part.compile = functools.partial(_compile, part, part.compile)
    part._cache = cache or part._cache
    compiled.get_call_template, compiled.get_overload = part.get_call_template, part.get_overload


def _compile(part: Any, compile: Callable[..., Any], arguments: tuple[types.Type, ...]) -> None:
    """Compiles a part; once for all constants that callers pass, because LLVM puts them into its code anyway."""
    with global_compiler_lock, _no_machine_code():
        arguments = tuple(types.unliteral(argument) for argument in arguments)
        compile(arguments)
        part.overloads[arguments].library._ensure_finalized()  # else the caller would do it, outside of this block


@contextmanager
def _no_machine_code() -> Iterator[None]:
    """What is compiled inside the block can be linked and not be run."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(CPUCodeLibrary, "_optimize_final_module", lambda _library: None))
        # The engine translates all modules that it has as soon as it needs one of them.
        stack.enter_context(patch.object(JITCPUCodegen, "_add_module", lambda _codegen, _module: None))
        stack.enter_context(patch.object(CPUContext, "get_executable", _not_executable))
        stack.enter_context(patch.object(CPUContext, "create_cfunc_wrapper", lambda *_arguments: None))
        stack.enter_context(patch.object(JITCPUCodegen, "set_env", lambda _codegen, _name, kept: _kept.append(kept)))
        bitcode = CPUCodeLibrary.serialize_using_bitcode
        stack.enter_context(patch.object(CPUCodeLibrary, "serialize_using_object_code", bitcode))
        yield


def _not_executable(_context: CPUContext, library: Any, description: Any, environment: Any) -> Any:
    """In place of `CPUContext.get_executable`: a function object without code, by which numba finds `library`."""
    return _dynfunc.make_function(description.lookup_module(), description.qualname, "", 0, environment, (library,))
