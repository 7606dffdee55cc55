"""Full shared memory ends a program at once, with one line; a batch that is lost on its way is never waited for."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fixres.pipelines.loaders import open_loader
from fixres.pipelines.runtime.process_pool import map_chunks
from tests.pipelines.loaders.loading import config, write_coded_beton

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from pathlib import Path
from fixres.pipelines.loaders import open_loader
from fixres.pipelines.runtime.exit_codes import run
from tests.pipelines.loaders.loading import config
settings = config(Path(sys.argv[1]), num_workers=2, resolution=256)
run(lambda: [None for _ in open_loader("torch", settings)])
"""


def limit() -> None:
    """Blocks of shared memory count as files; the kernel refuses those above this size, as it does in a full one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_batch_that_does_not_fit_ends_the_program(tmp_path: Path) -> None:
    data = write_coded_beton(tmp_path / "coded.beton", [(40, 50)] * 20)
    command = [sys.executable, "-c", PROGRAM, str(data)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, preexec_fn=limit)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1, done.stderr
    assert "could not hand over its batch through /dev/shm" in done.stderr and "--shm-size" in done.stderr


def test_too_little_shared_memory_is_noticed_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_coded_beton(tmp_path / "coded.beton", [(40, 50)] * 20)
    kilobytes = 1 << 10
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=64, f_frsize=kilobytes, f_blocks=64))
    with pytest.raises(OSError, match=r"/dev/shm has 0\.1 MB free") as caught:
        next(map_chunks(np.sum, np.arange(10), 2, 2))
    assert caught.value.errno == errno.ENOMEM
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=900, f_frsize=kilobytes, f_blocks=900))
    assert list(map_chunks(np.sum, np.arange(10), 5, 2)) == [10, 35]
    with open_loader("torch", config(data, num_workers=2, resolution=256)) as loader:  # 5 images of 192 KiB
        with pytest.raises(OSError, match=r"/dev/shm has 0\.9 MB free"):
            next(iter(loader))
        loader.set_resolution(32)
        assert len(list(loader)) == 4
    with open_loader("torch", config(data, num_workers=0, resolution=256)) as loader:
        assert len(list(loader)) == 4
