"""Damaged images are reported, and stop the run or are replaced, depending on `on_bad`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from fixres.pipelines.loaders import open_loader
from fixres.pipelines.spec import BadSampleError, InputError, Source
from tests.coded import coded_image, jpeg, write_coded_folder
from tests.pipelines.loaders.loading import TRAIN, collect, config, encoded

SIZES = [(100 + 7 * i, 120 - 3 * i) for i in range(14)]
BAD = {
    "truncated": lambda data: data[: len(data) // 2],
    "garbage": lambda _: b"no image" * 50,
    "empty": lambda _: b"",
}
ENGINES = ["torch", "dali-slice", "dali"]


@pytest.fixture(params=list(BAD))
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder whose sample 9 (class_01/00005.jpg, as class 0 has 7) is damaged."""
    folder = write_coded_folder(tmp_path / "coded", SIZES)
    (folder / "class_01" / "00005.jpg").write_bytes(BAD[request.param](jpeg(coded_image(*SIZES[5], 5))))
    return folder


@pytest.fixture
def damaged_shards(tmp_path: Path) -> Path:
    """Shards whose sample 5 is overwritten after they were written and verified."""
    from fixres.pipelines.formats.webdataset_writer import write_shards

    folder = tmp_path / "shards"
    write_shards(folder, encoded(SIZES), ("a", "b"), samples_per_shard=8)
    shard = folder / "shard-000000.tar"
    data, image = bytearray(shard.read_bytes()), jpeg(coded_image(*SIZES[5], 5))
    at = data.index(image)
    data[at + len(image) // 2 : at + len(image)] = bytes(len(image) - len(image) // 2)
    data[at : at + 10] = bytes(10)
    shard.write_bytes(data)
    return folder


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("num_workers", [0, 2])
def test_stopping(engine: str, num_workers: int, damaged: Path) -> None:
    if engine != "torch":
        pytest.importorskip("nvidia.dali")
    with open_loader(engine, config(damaged, num_workers=num_workers, batch_size=3)) as loader:
        with pytest.raises(BadSampleError, match=r"class_01/00005\.jpg") as caught:
            collect(loader)
        assert caught.value.index == 9
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("crop", ["train", "eval"])
def test_replacing(engine: str, crop: str, damaged: Path) -> None:
    """Sample 10 replaces 9; everything else is as without damage, and the next epoch works."""
    if engine != "torch":
        pytest.importorskip("nvidia.dali")
    changes = {"crop": TRAIN, "shuffle": True} if crop == "train" else {}
    with open_loader(engine, config(damaged, on_bad="replace", batch_size=3, **changes)) as loader:
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            seen = collect(loader)
            assert sorted(seen.indices.tolist()) == sorted([*range(9), 10, *range(10, 14)])
            codes = np.array(sorted(range(14), key=lambda i: (i % 2, i)))
            blue = seen.images[..., 2].reshape(14, -1).mean(axis=1)
            assert np.rint((blue - 16) / 32).astype(int).tolist() == (codes[seen.indices] % 8).tolist()
        assert loader.counters.num_bad_samples == len(loader.counters.bad_samples) >= 1
        assert all("class_01/00005.jpg" in line for line in loader.counters.bad_samples)


@pytest.mark.parametrize("engine", ENGINES)
def test_shards(engine: str, damaged_shards: Path) -> None:
    if engine != "torch":
        pytest.importorskip("nvidia.dali")
    settings = {"crop": TRAIN, "shuffle": True, "batch_size": 3}
    with open_loader(engine, config(damaged_shards, **settings)) as loader:
        with pytest.raises(BadSampleError, match=r"shard-000000\.tar: 000000005") as caught:
            collect(loader)
        assert caught.value.index == 5
    with open_loader(engine, config(damaged_shards, on_bad="replace", **settings)) as loader:
        assert sorted(collect(loader).indices.tolist()) == sorted([*range(5), 6, *range(6, 14)])


def test_all_bad(tmp_path: Path) -> None:
    folder = tmp_path / "coded" / "only"
    folder.mkdir(parents=True)
    for i in range(5):
        (folder / f"{i}.jpg").write_bytes(b"no image")
    with open_loader("torch", config(folder.parent, on_bad="replace")) as loader:
        with pytest.raises(BadSampleError, match="5 samples in a row are bad"):
            collect(loader)


class Odd:
    """A source that raises an error."""

    def __init__(self, source: Source) -> None:
        self.labels, self.name, self.classes = source.labels, source.name, source.classes

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, _: int) -> bytes:
        raise RuntimeError("an error of our code")


def test_an_error_of_our_code_in_a_worker_is_raised(tmp_path: Path) -> None:
    folder = write_coded_folder(tmp_path / "coded", SIZES)
    with open_loader("torch", config(folder, num_workers=1)) as loader:
        loader._engine.dataset._source = Odd(loader._engine.dataset._source)
        with pytest.raises(RuntimeError, match="an error of our code"):
            next(iter(loader))


def test_a_dead_worker(tmp_path: Path) -> None:
    """A worker that the system kills ends the run with one line."""
    folder = write_coded_folder(tmp_path / "coded", SIZES * 40)
    with open_loader("torch", config(folder, num_workers=1, batch_size=2)) as loader:
        batches = iter(loader)
        next(batches)
        os.kill(loader._engine._iterator._workers[0].pid, signal.SIGKILL)
        with pytest.raises(InputError, match="a worker process died"):
            for _ in batches:
                pass


def has_pending(process: int, number: signal.Signals) -> bool:
    """Whether a process has not yet taken a signal that was sent to it."""
    (line,) = (line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("ShdPnd"))
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_signals_to_the_whole_job_are_left_to_the_training(tmp_path: Path) -> None:
    """Schedulers send them to all processes; the training needs its workers until it has saved. It can end them."""
    folder = write_coded_folder(tmp_path / "coded", SIZES)
    with open_loader("torch", config(folder, num_workers=1, batch_size=2)) as loader:
        batches = iter(loader)
        next(batches)
        (worker,) = loader._engine._iterator._workers
        for name in ("TERM", "USR1"):
            subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}"], check=True)
        assert len(list(batches)) == len(loader) - 1 and worker.is_alive()
        while has_pending(worker.pid, signal.SIGTERM):  # it would swallow the next one
            time.sleep(0.01)
        worker.terminate()
        worker.join(20)
        assert worker.exitcode == 0
