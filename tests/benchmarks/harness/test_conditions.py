"""Storage, page cache and driver, checked with files whose state the tests set."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.harness.conditions import conditions, gpu_driver, storage
from benchmarks.harness.page_cache import evict, files_below, load, release_pages, resident_share


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files on a disk whose pages can be dropped."""
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(os.urandom(1_000_001))
    found = files_below(tmp_path)
    evict(found)
    if resident_share(found):
        pytest.skip("this file system keeps its files in memory")
    return found


def test_pages_come_and_go(files: list[Path]) -> None:
    load(files)
    assert resident_share(files) == 1
    evict(files[:1])
    assert resident_share(files) == pytest.approx(2 / 3)
    assert resident_share(files[:1]) == 0
    files[0].read_bytes()
    assert resident_share(files) == 1


def test_mapped_pages_stay_until_they_are_released(files: list[Path]) -> None:
    with files[0].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = bytes(mapped)
        evict(files[:1])
        assert resident_share(files[:1]) > 0.9
        release_pages(files[0].parent)
        evict(files[:1])
        assert resident_share(files[:1]) < 0.05
        assert bytes(mapped) == before


def test_files_below_names_each_inode_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.link(tmp_path / "a", tmp_path / "b")
    assert len(files_below(tmp_path)) == 1
    assert files_below(tmp_path / "a") == [tmp_path / "a"]


def test_storage_is_that_of_the_innermost_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, memory = tmp_path / "net", tmp_path / "with space"
    (network / "deep").mkdir(parents=True)
    memory.mkdir()
    # Of two mounts at one place the later one is on top.
    mounts = {"/": "ext4", "/dev/shm": "tmpfs", str(network): "nfs4"}
    mounted = [("/", "rootfs"), *mounts.items(), (str(memory), "xfs"), (str(memory), "ramfs")]
    partitions = [SimpleNamespace(mountpoint=place, fstype=kind) for place, kind in mounted]
    monkeypatch.setattr("psutil.disk_partitions", lambda all: partitions if all else [])
    assert storage(network / "deep") == {"file_system": "nfs4", "device": "network"}
    assert storage(memory) == {"file_system": "ramfs", "device": "memory"}
    assert storage(tmp_path)["file_system"] == "ext4"
    assert storage(Path("/dev/shm"))["device"] == "memory"


def test_conditions_have_the_fields_of_a_record(tmp_path: Path) -> None:
    found = conditions(tmp_path, "cold")
    assert {"cpu", "num_cores", "gpu", "gpu_driver", "load_average", "commit", "commit_clean", "versions"} <= set(found)
    assert found["page_cache"] == "cold" and set(found["storage"]) == {"file_system", "device"}


def test_the_driver_is_read_from_the_file_or_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, tool = tmp_path / "version", tmp_path / "nvidia-smi"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build\nGCC 12.1\n")
    assert gpu_driver(version) == "580.159.04"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_driver(tmp_path / "none") is None
    tool.write_text("#!/bin/sh\necho 570.86.15\necho 570.86.15\n")
    tool.chmod(0o755)
    assert gpu_driver(tmp_path / "none") == "570.86.15"
