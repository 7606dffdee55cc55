"""Compiled kernels are kept on disk, and not a moment longer than they are right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pipelines.kernels as kernels

_INNER = "SIZE = {size}\n"
_OUTER = """
from pipelines.inner import SIZE
from pipelines.kernels import kernel


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


def test_a_constant_changed_in_another_file_is_noticed(tmp_path):
    _package(tmp_path, 5)
    assert _run(tmp_path) == (5, 0)
    assert _run(tmp_path) == (5, 1)
    _package(tmp_path, 7)  # outer.py, which numba looks at, is as it was
    assert _run(tmp_path) == (7, 0)
    assert len(list((tmp_path / "pipelines" / "__pycache__").glob("kernels-*"))) == 1


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
