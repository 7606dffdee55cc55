"""Compiled kernels are kept on disk, and not a moment longer than they are right."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pipelines.runtime.numba_cache as kernels

_INNER = "SIZE = {size}\n"
_OUTER = """
from pipelines.inner import SIZE
from pipelines.runtime.numba_cache import kernel


@kernel
def size() -> int:
    return SIZE
"""


def _package(root: Path, size: int) -> None:
    folder = root / "pipelines"
    folder.mkdir(exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "kernels.py").write_text(Path(kernels.__file__).read_text())
    (folder / "inner.py").write_text(_INNER.format(size=size))
    if not (folder / "outer.py").exists():
        (folder / "outer.py").write_text(_OUTER)


def _run(root: Path, **variables: str) -> int:
    code = "from pipelines.outer import size; print(size(), len(size.stats.cache_hits))"
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"} | variables
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return tuple(int(word) for word in done.stdout.split())


def _caches(root: Path) -> list[Path]:
    return sorted((root / "pipelines" / "__pycache__").glob("kernels-*"))


def test_a_constant_changed_in_another_file_is_noticed_and_caches_that_nobody_used_for_weeks_are_removed(tmp_path):
    _package(tmp_path, 5)
    assert _run(tmp_path) == (5, 0)
    (used,) = _caches(tmp_path)
    old = used.with_name("kernels-of-long-ago")
    old.mkdir()
    month_ago = time.time() - 30 * 86400
    for folder in (used, old):
        os.utime(folder, (month_ago, month_ago))
    assert _run(tmp_path) == (5, 1)  # which is a use
    _package(tmp_path, 7)  # outer.py, which numba looks at, is as it was
    assert _run(tmp_path) == (7, 0)
    assert used in _caches(tmp_path) and old not in _caches(tmp_path)
    _package(tmp_path, 5)  # as after a look at another branch
    assert _run(tmp_path) == (5, 1)


def _nowhere_else(root: Path) -> dict[str, str]:
    """Variables for a process that can write neither beside the sources nor at home."""
    (root / "pipelines" / "__pycache__").write_text("in the way")
    (root / "temporary").mkdir()
    return {"XDG_CACHE_HOME": str(root / "pipelines" / "__init__.py"), "TMPDIR": str(root / "temporary")}


def test_processes_share_one_temporary_cache(tmp_path):
    _package(tmp_path, 5)
    variables = _nowhere_else(tmp_path)
    assert [_run(tmp_path, **variables) for _ in range(2)] == [(5, 0), (5, 1)]
    (folder,) = (tmp_path / "temporary").iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["open to all", "link"])
def test_a_temporary_cache_that_others_can_write_to_is_not_believed(kind, tmp_path):
    """What lies there is run as machine code."""
    _package(tmp_path, 5)
    variables = _nowhere_else(tmp_path)
    (tmp_path / "elsewhere").mkdir(0o700)
    planted = tmp_path / "temporary" / f"roc-fixres-{os.getuid()}"
    if kind == "link":
        planted.symlink_to(tmp_path / "elsewhere")
    else:
        planted.mkdir()
        planted.chmod(0o777)
    assert _run(tmp_path, **variables) == (5, 0)
    assert list((tmp_path / "temporary").iterdir()) == [planted] and list(planted.iterdir()) == []


def test_what_no_kernel_imports_changes_nothing(tmp_path):
    _package(tmp_path, 5)
    before = kernels.sources_digest(tmp_path / "pipelines")
    (tmp_path / "pipelines" / "other.py").write_text("SIZE = 9\n")
    assert kernels.sources_digest(tmp_path / "pipelines") == before
    (tmp_path / "pipelines" / "inner.py").write_text("from pipelines.other import SIZE\n")
    with_other = kernels.sources_digest(tmp_path / "pipelines")
    (tmp_path / "pipelines" / "other.py").write_text("SIZE = 10\n")
    assert len({before, with_other, kernels.sources_digest(tmp_path / "pipelines")}) == 3


def test_the_users_cache_folder_is_used_and_not_emptied(tmp_path):
    _package(tmp_path, 5)
    users = tmp_path / "users"
    (users / "kernels-of-another").mkdir(parents=True)
    assert _run(tmp_path, NUMBA_CACHE_DIR=str(users)) == (5, 0)
    assert _run(tmp_path, NUMBA_CACHE_DIR=str(users)) == (5, 1)
    assert len(list(users.iterdir())) == 2
