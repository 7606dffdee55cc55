"""Freed memory stays in the process after `tune_allocator`, unless the user or another allocator decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixres.pipelines.runtime import allocator

ROOT = Path(__file__).parents[3]
# Page faults of buffers that are allocated, written and freed, before and after `tune_allocator`.
_CHURN = """
import ctypes, resource
from fixres.pipelines.runtime.allocator import allocator, tune_allocator
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for megabytes in (3, 40, 3, 40):
        ctypes.create_string_buffer(megabytes << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults(), allocator(), sep=",")
tune_allocator()
faults()
print(faults(), allocator(), sep=",")
"""
_PAGES = 2 * (3 + 40) * 256


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES", "FIXRES_ALLOCATOR", "LD_PRELOAD")):
            monkeypatch.delenv(name)


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc")
def test_freed_memory_is_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", _CHURN], cwd=ROOT, capture_output=True, text=True, check=True)
    (plain, before), (kept, after) = (line.split(",", 1) for line in done.stdout.splitlines())
    assert before == "glibc" and after == "glibc, keeps freed memory"
    assert int(plain) > _PAGES / 2 and int(kept) < _PAGES / 50


@pytest.mark.skipif("glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="needs glibc")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FIXRES_ALLOCATOR", "default", "glibc, default settings"),
        ("MALLOC_TRIM_THRESHOLD_", "131072", "glibc, set by MALLOC_TRIM_THRESHOLD_"),
        ("GLIBC_TUNABLES", "glibc.malloc.tcache_count=7", "glibc, set by GLIBC_TUNABLES"),
    ],
)
def test_the_users_choice_stays(name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(allocator, "_setting", "")
    allocator._found.cache_clear()
    assert allocator.tune_allocator() == said
    allocator._found.cache_clear()
