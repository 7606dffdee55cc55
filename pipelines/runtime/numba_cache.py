"""Compiles kernels with numba, without the GIL, and caches them on disk until the source of any kernel changes.

numba's own cache checks only the file of the outermost function. If a function or constant from another file changes,
it still runs the old machine code with old sizes and offsets, which overwrites memory. So the name of the cache folder
contains a digest of all files that kernels depend on.
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
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import config, njit

_PACKAGE = Path(__file__).parents[1]
_NAME = __name__.rpartition(".runtime.")[0]  # fixres.pipelines
_PREFIX = "kernels-"
_DAYS_KEPT = 14  # since the last use: other branches and processes that still run older sources need their caches


def kernel(function: Callable[..., Any]) -> Any:
    """Decorator: `numba.njit(nogil=True, cache=True)` with a separate cache for each state of the sources."""
    users = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())  # read by njit while it decorates
    try:
        return njit(nogil=True, cache=True)(function)
    finally:
        config.CACHE_DIR = users


@functools.cache
def cache_folder() -> Path:
    """The folder of compiled kernels: in NUMBA_CACHE_DIR if that is set, otherwise beside Python's compiled files.

    Outside NUMBA_CACHE_DIR, folders that were not used for two weeks are removed when a new one is made.
    """
    parent = Path(config.CACHE_DIR) if config.CACHE_DIR else _writable_parent()
    folder = parent / (_PREFIX + sources_digest(_PACKAGE, _NAME))
    if not folder.is_dir():
        if not config.CACHE_DIR:
            _remove_unused(parent)
        folder.mkdir(parents=True, exist_ok=True)
        sys.stderr.write("compiling the decoder, once for this version; this takes a minute or two\n")
    with contextlib.suppress(OSError):  # the folder may belong to another user
        os.utime(folder)
    return folder


def _remove_unused(parent: Path) -> None:
    """Removes caches that were not used for a while. The modification time of a folder is that of its last use."""
    oldest = time.time() - _DAYS_KEPT * 86400
    for folder in parent.glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):  # another process may remove it at the same time
            if folder.stat().st_mtime < oldest:
                shutil.rmtree(folder, ignore_errors=True)


def sources_digest(package: Path, name: str) -> str:
    """Digest of the files of a package that contain kernels, and of all files of the package that these import.

    Args:
        package: its folder.
        name: the name under which it is imported.
    """
    top = Path(*name.split("."))
    sources = {top / file.relative_to(package): file.read_text() for file in package.rglob("*.py")}
    marker = f"from {name}.runtime.numba_cache import kernel"
    wanted, found = [file for file, text in sources.items() if marker in text], set()
    while wanted:
        file = wanted.pop()
        if file not in found:
            found.add(file)
            wanted += [other for other in _imported(sources[file]) if other in sources]
    digest = hashlib.sha256()
    for file in sorted(found):
        digest.update(f"{file}\0{sources[file]}\0".encode())
    return digest.hexdigest()[:16]


def _imported(source: str) -> list[Path]:
    """The files that the imports of a source may refer to, whether they exist or not.

    `from package.module import name` does not count package/__init__.py: it holds no code of kernels.
    """
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    modules = [Path(*name.split(".")) for name in names]
    return [file for module in modules for file in (module.with_suffix(".py"), module / "__init__.py")]


def _writable_parent() -> Path:
    """The first of these folders that is writable: the package's __pycache__, the user's cache, a temporary folder."""
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
    """A temporary folder that only the user can write to.

    All processes of the user share one. If its name is taken by a folder of other rights, the process makes its own and
    removes it at its end.
    """
    shared = Path(tempfile.gettempdir(), f"roc-fixres-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        shared.mkdir(0o700)
    found = shared.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
        return shared  # the files in it are executed, so no other user may be able to write them
    own = tempfile.mkdtemp(prefix="roc-fixres-")
    atexit.register(shutil.rmtree, own, ignore_errors=True)
    return Path(own)
