"""How kernels are compiled: by numba, without the GIL, and kept on disk until the source of any kernel changes.

numba's own cache looks at the file of the outermost function only: after a change in a function or constant that it
takes from another file, the old machine code runs on, with old sizes and offsets, and overwrites memory. So the cache
folder bears a digest of all files that kernels are made of.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

_PACKAGE = Path(__file__).parents[1]
_PREFIX = "kernels-"
_DAYS_KEPT = 14  # since its last use, for other branches, and for processes that still run from sources of before


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator: `numba.njit(nogil=True, cache=True)` with a cache of its own for each state of our sources."""
    users = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())  # read by njit while it decorates
    try:
        return njit(nogil=True, cache=True)(function)
    finally:
        config.CACHE_DIR = users


@functools.cache
def cache_folder() -> Path:
    """Where compiled kernels are kept: below NUMBA_CACHE_DIR if that is set, else with Python's own compiled files.

    Outside of NUMBA_CACHE_DIR, folders that no process has used for two weeks are removed when a new one is made.
    """
    parent = Path(config.CACHE_DIR) if config.CACHE_DIR else _writable_parent()
    folder = parent / (_PREFIX + sources_digest(_PACKAGE))
    if not folder.is_dir():
        if not config.CACHE_DIR:
            _remove_unused(parent)
        folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(OSError):  # made by somebody else for all to use
        os.utime(folder)
    return folder


def _remove_unused(parent: Path) -> None:
    """Removes caches whose last use, which is their modification time, is long ago."""
    oldest = time.time() - _DAYS_KEPT * 86400
    for folder in parent.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):  # another process was faster
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def sources_digest(package: Path) -> str:
    """Digest of all files of a package that decide what a kernel does: those with kernels, and what they import."""
    sources = {file.relative_to(package.parent): file.read_text() for file in package.rglob("*.py")}
    marker = f"from {package.name}.runtime.numba_cache import kernel"
    wanted, found = [name for name, text in sources.items() if marker in text], set()
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += [other for other in _imported(sources[name]) if other in sources]
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}\0{sources[name]}\0".encode())
    return digest.hexdigest()[:16]


def _imported(source: str) -> list[Path]:
    """The files that a source's `from ... import` statements may name, whether they exist or not."""
    files = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = Path(*node.module.split("."))
            files += [module.with_suffix(".py"), module / "__init__.py"]
            files += [module / f"{name.name}.py" for name in node.names]
    return files


def _writable_parent() -> Path:
    """The package's __pycache__, or the user's cache folder if the package is somebody else's, or a temporary one."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roc-fixres"
    for folder in (_PACKAGE / "__pycache__", home):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    return _temporary()


def _temporary() -> Path:
    """The user's own temporary folder, one for all processes; if that name is taken, one that goes with the process."""
    shared = Path(tempfile.gettempdir(), f"roc-fixres-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        shared.mkdir(0o700)
    found = shared.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return shared  # what lies there is run, so nobody else may have put it there
    own = tempfile.mkdtemp(prefix="roc-fixres-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return Path(own)
