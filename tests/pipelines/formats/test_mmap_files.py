"""Memory-mapped files: all bytes, any size, no open descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
from mmap import PAGESIZE
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.formats.beton_reader import BetonReader
from fixres.pipelines.formats.mmap_files import map_file, map_files
from fixres.pipelines.formats.parts import Part
from tests.pipelines.loaders.loading import write_coded_beton

ROOT = Path(__file__).parents[3]
NUM_PARTS = 40

# Imports first, because they open files. The limit then leaves descriptors for half of the parts.
_EPOCH = """
import os, resource, sys
from pathlib import Path
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import LoaderConfig, TrainCrop
import fixres.pipelines.loaders.roc, fixres.pipelines.loaders.pillow

limit = len(os.listdir("/proc/self/fd")) + int(sys.argv[2]) // 2
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
for engine in ("roc", "torch"):
    with open_loader(engine, LoaderConfig(Path(sys.argv[1]), TrainCrop(), 32, 8, num_workers=0)) as loader:
        print(sum(len(batch.labels) for batch in loader))
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for number in range(NUM_PARTS):
        write_coded_beton(Part(number, NUM_PARTS).place(folder / "train.beton"), [(20, 30)] * 2)
    return folder


def test_more_parts_than_descriptors_are_read(parts: Path) -> None:
    command = [sys.executable, "-c", _EPOCH, str(parts), str(NUM_PARTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.split() == [str(2 * NUM_PARTS)] * 2, done.stderr


def test_a_mapped_file_keeps_no_descriptor(parts: Path) -> None:
    before = os.listdir("/proc/self/fd")
    reader = BetonReader(next(parts.iterdir()))
    assert os.listdir("/proc/self/fd") == before
    assert reader.data.tobytes() == reader.path.read_bytes()  # to the last byte, and none behind it


@pytest.mark.parametrize("size", [1, PAGESIZE - 1, PAGESIZE, PAGESIZE + 1, 3 * PAGESIZE + 7])
def test_files_are_mapped_to_their_last_byte(size: int, tmp_path: Path) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "b").write_bytes(b"second")
    mapped = map_file(tmp_path / "a")
    assert mapped.readonly and bytes(mapped) == content
    joint, starts = map_files([tmp_path / "a", tmp_path / "b"])
    assert joint[:size] == content and joint[starts[1] : starts[1] + 6] == b"second"


def test_memory_is_unmapped_with_the_last_reference(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * PAGESIZE)
    mapped = map_file(tmp_path / "a")
    assert str(tmp_path / "a") in Path("/proc/self/maps").read_text()
    del mapped
    assert str(tmp_path / "a") not in Path("/proc/self/maps").read_text()
