"""Compiles kernels with numba, without the GIL, and caches them on disk until the source of any kernel changes.

numba's own cache checks only the file of the outermost function. If a function or constant from another file changes,
it still runs the old machine code with old sizes and offsets, which overwrites memory. So the name of the cache folder
contains a digest of all files that kernels depend on. The files have checksums: damaged machine code would crash.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import os
import pickle
import re
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    _CacheLocator,
    _SourceFileBackedLocatorMixin,
)

from fixres.pipelines.runtime.garbage import without_collection
from fixres.pipelines.runtime.kernel_parts import give_callers_a_part
from fixres.pipelines.runtime.locks import acquire, release

_PACKAGE = Path(__file__).parents[1]
_NAME = __name__.rpartition(".runtime.")[0]  # fixres.pipelines
_PREFIX = "kernels-"
_SECONDS_TO_WAIT = (
    120.0  # for another process that compiles the same kernel; a slow core takes a minute for the largest
)
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\w[\w.]*)[ \t]+import[ \t]+(\([^)]*\)|.*)|import[ \t]+(.*))", re.MULTILINE
)  # a module and its names, or modules; also in texts, which does no harm
_DAYS_KEPT = 14  # since the last use: other branches and processes that still run older sources need their caches


def kernel(function: Callable[..., Any], is_shared: bool = False) -> Any:
    """Decorator: `numba.njit(nogil=True)` with a separate cache on disk for each state of the sources."""
    compiled = njit(nogil=True, no_cfunc_wrapper=True)(function)
    compiled._cache = _Cache(function)
    give_callers_a_part(compiled, function, _Cache(function, ".part") if is_shared else None)
    return compiled


def shared_kernel(function: Callable[..., Any]) -> Any:
    """Decorator of a large kernel that several others call: what these need of it is kept on disk, too."""
    return kernel(function, is_shared=True)


def inlined(function: Callable[..., Any]) -> Any:
    """Decorator of a function whose code is copied into the kernels that call it, whatever its size."""
    compiled = njit(nogil=True, forceinline=True)(function)
    give_callers_a_part(compiled, function, forceinline=True)
    return compiled


class _Locator(_SourceFileBackedLocatorMixin, _CacheLocator):
    """Where numba keeps a function's files. Unlike numba's own, the folder may be read-only."""

    def __init__(self, py_func: Callable[..., Any], py_file: str) -> None:
        self._py_file, self._lineno = py_file, py_func.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return str(cache_folder() / self.get_suitable_cache_subpath(self._py_file))

    def ensure_cache_path(self) -> None:
        with contextlib.suppress(OSError):
            os.makedirs(self.get_cache_path(), exist_ok=True)


class _Files(IndexDataCacheFile):
    """Index and compiled code of a function. A file that is damaged counts as missing: its code is compiled again."""

    def load(self, key: Any) -> Any:
        for there in self.everywhere():
            if name := there._load_index().get(key):
                with contextlib.suppress(Exception):  # pickle raises errors of any type
                    return there._load_data(name)
        return None

    def everywhere(self) -> Iterator[_Files]:
        """The files of this function in each folder that may have them."""
        for folder in (cache_folder(), *_warm_folders()):
            place = Path(folder, Path(self._cache_path).name)
            yield _Files(str(place), self._index_name.removesuffix(".nbi"), self._source_stamp)

    def save(self, key: Any, data: Any) -> None:
        with contextlib.suppress(OSError):  # the folder is read-only, or the disk is full
            super().save(key, data)

    def _load_index(self) -> dict[Any, str]:
        try:
            with open(self._index_path, "rb") as file:
                pickle.load(file)  # the version
                _check(file.read())
            return super()._load_index()
        except Exception:
            return {}

    def _load_data(self, name: str) -> Any:
        return pickle.loads(_check(Path(self._data_path(name)).read_bytes()))

    def _dump(self, obj: Any) -> bytes:
        data = super()._dump(obj)
        return data + hashlib.sha256(data).digest()


def _check(data: bytes) -> bytes:
    """The data before its checksum. Raises ValueError if they do not match."""
    size = hashlib.sha256().digest_size
    if hashlib.sha256(data[:-size]).digest() != data[-size:]:
        raise ValueError("damaged")
    return data[:-size]


class _Implementation(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):
    _impl_class = _Implementation

    def __init__(self, py_func: Callable[..., Any], suffix: str = "") -> None:
        super().__init__(py_func)
        name, stamp = self._impl.filename_base + suffix, self._impl.locator.get_source_stamp()
        self._cache_file = _Files(self._cache_path, name, stamp)
        self._lock = _Lock(Path(self._cache_path, f"{name}.lock"))

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with without_collection():  # the first time, numba loads more modules
            found = super().load_overload(sig, target_context)
        if found is None:
            self._lock.take()
            found = super().load_overload(sig, target_context)  # of a process that had the lock
            if found is not None:
                self._lock.give_back()
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        for environment in data._find_referenced_environments():  # of the parts, as numba does when it loads `data`
            data.target_context.codegen().set_env(environment.env_name, environment)
        super().save_overload(sig, data)
        self._lock.give_back()


def waits_for_compilation(function: Any) -> bool:
    """Whether no machine code of a kernel is on disk, and a process that compiles it can keep it there."""
    is_there = any(there._load_index() for there in function._cache._cache_file.everywhere())
    return not is_there and os.access(cache_folder(), os.W_OK)


class _Lock:
    """Held by the process that compiles a kernel. Ranks and workers that start together would each compile it.

    Locks cannot wait for each other in a circle: a kernel's lock is taken before those of the parts that it calls.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._descriptor = path, None

    def take(self) -> None:
        """Waits until no other process has it. In a folder that cannot be written, every process compiles."""
        if self._descriptor is None:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
                acquire(self._descriptor, _SECONDS_TO_WAIT)

    def give_back(self) -> None:
        if self._descriptor is not None:
            release(self._descriptor)
            self._descriptor = None


@functools.cache
def cache_folder() -> Path:
    """The folder of compiled kernels: in NUMBA_CACHE_DIR if that is set, otherwise beside Python's compiled files.

    Outside NUMBA_CACHE_DIR, folders that were not used for two weeks are removed when a new one is made.
    """
    folder = _writable_parent() / _name()
    if not folder.is_dir():
        if not config.CACHE_DIR:
            _remove_unused(folder.parent)
        is_warm = bool(_warm_folders())
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if not is_warm and sys.stderr is not None:
            once = "once for this version" if folder.is_dir() else f"at each start, because {folder} cannot be written"
            sys.stderr.write(f"compiling the decoder, {once}; this takes 10 to 30 seconds\n")
    with contextlib.suppress(OSError):  # the folder may belong to another user
        os.utime(folder)
    return folder


@functools.cache
def _name() -> str:
    return _PREFIX + sources_digest(_PACKAGE, _NAME)


@functools.cache
def _warm_folders() -> tuple[Path, ...]:
    """Further folders with kernels of these sources, which may be read-only, as in an installation of another user."""
    folders = [parent / _name() for parent in _parents()]
    return tuple(folder for folder in folders if folder.is_dir())


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

    `from package.module import name` does not count package/__init__.py: it holds no code of kernels. Python's parser
    would take 60 ms for all files, at each start.
    """
    names: list[str] = []
    for module, members, modules in _IMPORT.findall(source):
        names += [module, *(f"{module}.{name}" for name in re.findall(r"\w+", members))] if module else []
        names += re.findall(r"\w[\w.]*", modules)
    found = [Path(*name.split(".")) for name in names]
    return [file for module in found for file in (module.with_suffix(".py"), module / "__init__.py")]


def _parents() -> list[Path]:
    """NUMBA_CACHE_DIR, or else the package's __pycache__ and the user's cache; nobody else can write to them."""
    if config.CACHE_DIR:
        return [Path(config.CACHE_DIR)]
    found = [_PACKAGE / "__pycache__"]
    with contextlib.suppress(RuntimeError):  # no HOME, and no entry in the password file
        found.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roc-fixres")
    return found


def _writable_parent() -> Path:
    """The first of `_parents` that is writable, or else a temporary folder."""
    for folder in _parents():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
    try:
        return _temporary()
    except OSError:
        return _PACKAGE / "__pycache__"  # nothing can be written; a cache that is there can be read


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
