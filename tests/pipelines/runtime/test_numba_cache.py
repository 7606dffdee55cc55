"""Compiled kernels are cached on disk and compiled again when their sources change."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fixres.pipelines.runtime import numba_cache

_INNER = "SIZE = {size}\n"
_OUTER = """
from fixres.pipelines.inner import SIZE
from fixres.pipelines.runtime.numba_cache import kernel


@kernel
def size() -> int:
    return SIZE
"""


def _package(root: Path, size: int) -> Path:
    """Writes a package whose kernel `outer.size` returns a constant of another file; returns its folder."""
    folder = root / "fixres" / "pipelines"
    (folder / "runtime").mkdir(parents=True, exist_ok=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    for name in ("numba_cache.py", "kernel_parts.py", "locks.py", "garbage.py"):
        (folder / "runtime" / name).write_text(Path(numba_cache.__file__).with_name(name).read_text())
    (folder / "inner.py").write_text(_INNER.format(size=size))
    if not (folder / "outer.py").exists():
        (folder / "outer.py").write_text(_OUTER)
    return folder


def _run(root: Path, before: str = "", **variables: str) -> tuple[int, ...]:
    """The result of the kernel in a new process, which first runs `before`, and whether it came from the cache."""
    code = f"{before}\nfrom fixres.pipelines.outer import size; print(size(), len(size.stats.cache_hits))"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= variables | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return tuple(int(word) for word in done.stdout.split())


def _caches(root: Path) -> list[Path]:
    return sorted((root / "fixres" / "pipelines" / "__pycache__").glob("kernels-*"))


def test_a_changed_constant_in_another_file_recompiles_and_unused_caches_are_removed(tmp_path):
    _package(tmp_path, 5)
    assert _run(tmp_path) == (5, 0)
    (used,) = _caches(tmp_path)
    old = used.with_name("kernels-of-long-ago")
    old.mkdir()
    month_ago = time.time() - 30 * 86400
    for folder in (used, old):
        os.utime(folder, (month_ago, month_ago))
    assert _run(tmp_path) == (5, 1)  # this is a use
    _package(tmp_path, 7)  # outer.py, the only file that numba checks, is unchanged
    assert _run(tmp_path) == (7, 0)
    assert used in _caches(tmp_path) and old not in _caches(tmp_path)
    _package(tmp_path, 5)  # as after a switch to another branch and back
    assert _run(tmp_path) == (5, 1)


_SLOW = """
import time
from numba.core import compiler

compile_extra = compiler.compile_extra
compiler.compile_extra = lambda *given, **named: (time.sleep(1), compile_extra(*given, **named))[1]
"""


def test_processes_that_start_together_compile_once(tmp_path):
    _package(tmp_path, 5)
    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(_run, tmp_path, _SLOW) for _ in range(3)]
    assert sorted(one.result() for one in done) == [(5, 0), (5, 1), (5, 1)]


_WAITS = """
from fixres.pipelines.outer import size
from fixres.pipelines.runtime.numba_cache import waits_for_compilation

before = waits_for_compilation(size)
size()
assert (before, waits_for_compilation(size)) == {expected}
"""


def test_whether_a_kernel_waits_for_its_compilation(tmp_path):
    _package(tmp_path, 5)
    _run(tmp_path, _WAITS.format(expected=(True, False)))
    _run(tmp_path, _WAITS.format(expected=(False, False)))


def _unwritable(root: Path) -> dict[str, str]:
    """Variables for a process that can write neither beside the sources nor in the user's home."""
    (root / "fixres" / "pipelines" / "__pycache__").write_text("a file with the name of the folder")
    (root / "temporary").mkdir()
    return {"XDG_CACHE_HOME": str(root / "fixres" / "pipelines" / "__init__.py"), "TMPDIR": str(root / "temporary")}


def test_processes_share_one_temporary_cache(tmp_path):
    _package(tmp_path, 5)
    variables = _unwritable(tmp_path)
    assert [_run(tmp_path, **variables) for _ in range(2)] == [(5, 0), (5, 1)]
    (folder,) = (tmp_path / "temporary").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["writable for all", "link"])
def test_a_temporary_cache_that_others_can_write_to_is_not_used(kind, tmp_path):
    """Its files would be run as machine code."""
    _package(tmp_path, 5)
    variables = _unwritable(tmp_path)
    (tmp_path / "elsewhere").mkdir(0o700)
    planted = tmp_path / "temporary" / f"roc-fixres-{os.getuid()}"
    if kind == "link":
        planted.symlink_to(tmp_path / "elsewhere")
    else:
        planted.mkdir()
        planted.chmod(0o777)
    assert _run(tmp_path, **variables) == (5, 0)
    assert list((tmp_path / "temporary").iterdir()) == [planted] and list(planted.iterdir()) == []


def test_the_digest_covers_the_files_that_kernels_import(tmp_path):
    folder = _package(tmp_path, 5)
    before = numba_cache.sources_digest(folder, "fixres.pipelines")
    (folder / "other.py").write_text("SIZE = 9\n")
    assert numba_cache.sources_digest(folder, "fixres.pipelines") == before
    (folder / "inner.py").write_text("from fixres.pipelines.other import SIZE\n")
    with_other = numba_cache.sources_digest(folder, "fixres.pipelines")
    (folder / "other.py").write_text("SIZE = 10\n")
    assert len({before, with_other, numba_cache.sources_digest(folder, "fixres.pipelines")}) == 3


@pytest.mark.parametrize(
    "line",
    [
        "import fixres.pipelines.part.other as other",
        "from fixres.pipelines.part import other",
        "from fixres.pipelines.part import name",
        "from fixres.pipelines.part import (\n    first,\n    other as another,\n)",
        "import os, fixres.pipelines.part.other",
        "def size() -> int:\n    from fixres.pipelines.part import other",
    ],
)
def test_every_kind_of_import_counts(line, tmp_path):
    folder = _package(tmp_path, 5)
    (folder / "part").mkdir()
    (folder / "inner.py").write_text(f"{line}\n")
    imported = folder / "part" / ("__init__.py" if line.endswith("name") else "other.py")
    digests = set()
    for text in ("name = 1\n", "name = 2\n"):
        imported.write_text(text)
        digests.add(numba_cache.sources_digest(folder, "fixres.pipelines"))
    assert len(digests) == 2


def test_the_imports_of_all_sources_are_those_that_pythons_parser_finds():
    files = list(numba_cache._PACKAGE.rglob("*.py"))
    assert len(files) > 100
    for file in files:
        source, expected = file.read_text(), set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module:
                expected |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                expected |= {alias.name for alias in node.names}
        found = set(numba_cache._imported(source))
        assert {Path(*name.split(".")).with_suffix(".py") for name in expected} <= found, file


def test_texts_that_look_like_imports_do_no_harm():
    text = '"""Says so.\n\n    import ... and so on, (see\n    from . import nothing\n    import .\n"""\n'
    assert Path("and.py") in numba_cache._imported(text)  # of many names that are no files


def test_a_package_that_is_only_passed_through_does_not_count(tmp_path):
    """`from fixres.pipelines.part.other import name` needs part/__init__.py, but no kernel is made of it."""
    folder = _package(tmp_path, 5)
    (folder / "part").mkdir()
    (folder / "part" / "other.py").touch()
    (folder / "inner.py").write_text("from fixres.pipelines.part.other import name\n")
    before = numba_cache.sources_digest(folder, "fixres.pipelines")
    (folder / "part" / "__init__.py").write_text('"""Another docstring."""\n')
    (folder / "__init__.py").write_text('"""Another docstring."""\n')
    assert numba_cache.sources_digest(folder, "fixres.pipelines") == before


def test_the_projects_digest_covers_its_kernels_and_no_table_of_contents(monkeypatch):
    """Editing an __init__.py or a file reader must not recompile all kernels, which takes a minute."""
    package, texts, asked = Path(numba_cache.__file__).parents[1], {}, []
    imported = numba_cache._imported
    for file in package.rglob("*.py"):
        texts[file.read_text()] = str(file.relative_to(package))
    monkeypatch.setattr(numba_cache, "_imported", lambda source: asked.append(texts[source]) or imported(source))
    numba_cache.sources_digest(package, "fixres.pipelines")
    assert {"roc/layout.py", "roc/decoder/idct.py", "roc/decoder/vectors.py", "images/resampling.py"} <= set(asked)
    assert not [name for name in asked if name.endswith("__init__.py") or name.startswith(("formats", "loaders"))]


def test_the_users_cache_folder_is_used_and_not_emptied(tmp_path):
    _package(tmp_path, 5)
    users = tmp_path / "users"
    (users / "kernels-of-another").mkdir(parents=True)
    assert _run(tmp_path, NUMBA_CACHE_DIR=str(users)) == (5, 0)
    assert _run(tmp_path, NUMBA_CACHE_DIR=str(users)) == (5, 1)
    assert len(list(users.iterdir())) == 2


def _five() -> int:
    return 5


def _called(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Calls a kernel that is kept in `folder`; returns whether it came from there."""
    monkeypatch.setattr(numba_cache, "cache_folder", lambda: folder)
    monkeypatch.setattr(numba_cache, "_warm_folders", tuple)
    compiled = numba_cache.kernel(_five)
    assert compiled() == 5
    return len(compiled.stats.cache_hits)


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_damaged_files_are_compiled_again(ending, tmp_path, monkeypatch):
    """Truncated files ended every start with a traceback; a flipped bit in machine code would crash."""
    assert [_called(tmp_path, monkeypatch) for _ in range(2)] == [0, 1]
    (file,) = tmp_path.rglob(f"*.{ending}")
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    for damaged in (b"", content[:middle], content[:-32], flipped):
        file.write_bytes(damaged)
        assert [_called(tmp_path, monkeypatch) for _ in range(2)] == [0, 1]


def test_a_kernel_that_cannot_be_kept_is_compiled(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    assert [_called(tmp_path / "file", monkeypatch) for _ in range(2)] == [0, 0]


READ_ONLY = """
import os, tempfile
access, makedirs, opened = os.access, os.makedirs, open
def refuse(path, *_, **__):
    raise OSError(30, "Read-only file system", str(path))
def allowed(path, mode="r", *more, **named):
    return refuse(path) if set("wa") & set(mode) else opened(path, mode, *more, **named)
os.access = lambda path, mode, **_: not mode & os.W_OK
os.makedirs = os.mkdir = os.utime = refuse
import builtins
builtins.open = allowed
"""
NOBODY = """
import os, pwd
def unknown(number):
    raise KeyError(number)
pwd.getpwuid = unknown
for name in ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
"""


def test_a_read_only_cache_is_used(tmp_path):
    _package(tmp_path, 5)
    assert _run(tmp_path) == (5, 0)
    assert _run(tmp_path, READ_ONLY) == (5, 1)


def test_a_user_without_a_home_can_import(tmp_path):
    _package(tmp_path, 5)
    variables = _unwritable(tmp_path)
    del variables["XDG_CACHE_HOME"]
    assert [_run(tmp_path, NOBODY, **variables) for _ in range(2)] == [(5, 0), (5, 1)]
