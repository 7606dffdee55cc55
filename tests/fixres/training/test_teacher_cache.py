"""Runs with a teacher's outputs from a cache against runs without; files cut off, damaged, in use, of others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fixres.config.augment import DistillConfig
from fixres.experiment.run_folder import RunLog
from fixres.experiment.variant import VariantRun
from fixres.experiment.variant_parts import VariantPlan
from fixres.models.factory import Normalize, create_model
from fixres.pipelines.spec import InputError, Loader
from fixres.training import losses as distill
from fixres.training.losses import Teacher
from fixres.training.teacher_cache import LogitStore, teacher_digest, with_cache
from tests.fixres.conftest import CPU, TINY
from tests.fixres.fault_tolerance.test_lock import dying, end, forked
from tests.fixres.training.test_tricks_run import _all_on, _run, _same

ROOT = Path(__file__).parents[3]
OpenCoded = Callable[..., Loader]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of images that teachers were shown."""
    seen: list[int] = []
    whole = Teacher.__call__

    def watched(self: Teacher, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return whole(self, images)

    monkeypatch.setattr(distill.Teacher, "__call__", watched)
    return seen


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_a_second_run_evaluates_no_teacher_and_has_the_same_weights(
    dtype: str,
    tmp_path: Path,
    teacher: Path,
    open_coded: OpenCoded,
    asked: list[int],
) -> None:
    plain = _all_on(tmp_path / "plain", teacher)
    without = _run(plain, open_coded)
    num_evaluated = len(asked)
    assert num_evaluated > 0
    config = DistillConfig(str(teacher), cache=tmp_path / "kept", cache_dtype=dtype)  # type: ignore[arg-type]
    first = _run(replace(plain, run_dir=tmp_path / "one", distill=config), open_coded)
    assert len(asked) == 2 * num_evaluated
    second = _run(replace(plain, run_dir=tmp_path / "two", distill=config), open_coded)
    assert len(asked) == 2 * num_evaluated
    assert _same(first, second)
    assert _same(first, without) == (dtype == "fp32")
    for name, value in first.items():
        torch.testing.assert_close(value, without[name], rtol=0.02, atol=0.02)
    # Another student sees the same batches; another seed does not.
    other = replace(plain, run_dir=tmp_path / "three", distill=config, optim=replace(plain.optim, lr=0.1))
    _run(other, open_coded)
    assert len(asked) == 2 * num_evaluated
    _run(replace(plain, run_dir=tmp_path / "four", distill=config, seed=5), open_coded)
    assert len(asked) == 3 * num_evaluated


def _store(path: Path, of: str = "t", classes: int = 3) -> LogitStore:
    return LogitStore(path, of, classes, "fp32")


def _values(k: int, rows: int = 2) -> np.ndarray:
    return np.random.default_rng(k).normal(size=(rows, 3)).astype(np.float32)


def _digest(k: int) -> bytes:
    return bytes([k]) * 32


@pytest.mark.parametrize("lost", [1, 20, 30, 63])
def test_an_incomplete_entry_is_written_again_and_the_rest_is_kept(tmp_path: Path, lost: int) -> None:
    path = tmp_path / "store"
    store = _store(path)
    for k in range(3):
        store.put(_digest(k), _values(k))
    store.close()
    os.truncate(path, path.stat().st_size - lost)  # an entry has 40 + 24 bytes
    again = _store(path)
    assert len(again) == 2 and again.get(_digest(2)) is None
    again.put(_digest(2), _values(2))
    again.put(_digest(7), _values(7, rows=5))
    again.close()
    whole = _store(path)
    for k, rows in ((0, 2), (1, 2), (2, 2), (7, 5)):
        assert np.array_equal(whole.get(_digest(k)), _values(k, rows))
    assert whole.num_bytes == path.stat().st_size


def test_the_teacher_is_evaluated_again_for_a_damaged_entry(tmp_path: Path) -> None:
    path = tmp_path / "store"
    store = _store(path)
    store.put(_digest(1), _values(1))
    store.put(_digest(2), _values(2))
    store.close()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    again = _store(path)
    assert again.get(_digest(2)) is None and np.array_equal(again.get(_digest(1)), _values(1))


def test_a_killed_writer_leaves_complete_entries(tmp_path: Path) -> None:
    path = tmp_path / "store"

    def write(tell: int) -> None:
        store = _store(path, classes=50_000)
        for k in range(1000):
            store.put(bytes([k % 256, k // 256]) * 16, np.full((2, 50_000), k, np.float32))
            os.write(tell, b"x")

    child, ready = forked(write)
    for _ in range(5):
        assert os.read(ready, 1)
    time.sleep(0.001)
    end(child)
    os.close(ready)
    store = _store(path, classes=50_000)
    assert 5 <= len(store) < 1000
    for k in range(len(store)):
        assert (store.get(bytes([k % 256, k // 256]) * 16) == k).all()


def test_files_of_others_and_files_in_use_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fixres.pipelines.runtime.locks.acquire.__defaults__", (0.2,))
    path = tmp_path / "store"
    store = _store(path)
    num_open = len(os.listdir("/proc/self/fd"))
    with pytest.raises(InputError) as caught:
        _store(path)
    assert str(caught.value) == f"another run is using {path}; wait for it, or give another distill.cache"
    caught.value.with_traceback(None)
    assert len(os.listdir("/proc/self/fd")) == num_open
    store.close()
    with pytest.raises(InputError, match="outputs of another teacher"):
        _store(path, of="u")
    with pytest.raises(InputError, match="outputs of another teacher"):
        _store(path, classes=4)
    with pytest.raises(InputError, match="cache_dtype fp32"):
        LogitStore(tmp_path / "half", "t", 1, "fp16").put(_digest(0), np.array([[1e6]], np.float32))


def _holding(path: Path, with_worker: bool) -> Callable[[int], None]:
    def work(tell: int) -> None:
        store = _store(path)
        store.put(_digest(1), _values(1))
        if not with_worker or os.fork() == 0:
            os.write(tell, b"%d" % os.getpid())
        time.sleep(60)

    return work


def test_a_run_that_dies_slowly_is_waited_for(tmp_path: Path) -> None:
    """Like a run folder, because a killed run may be restarted quickly."""
    with dying(_holding(tmp_path / "store", with_worker=False)):
        store = _store(tmp_path / "store")
        assert np.array_equal(store.get(_digest(1)), _values(1))


def test_a_worker_that_outlives_its_killed_run_does_not_hold_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fixres.pipelines.runtime.locks.acquire.__defaults__", (0.2,))
    child, ready = forked(_holding(tmp_path / "store", with_worker=True))
    worker = int(os.read(ready, 20))
    end(child)
    try:
        os.kill(worker, 0)  # it is alive
        assert len(_store(tmp_path / "store")) == 1
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_store_that_is_gone_holds_no_file(tmp_path: Path) -> None:
    store = _store(tmp_path / "store")
    del store
    _store(tmp_path / "store").close()


def _teacher(weight: float = 1.0, resolution: int = 8, mean: float = 0.5) -> Teacher:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))
    nn.init.constant_(net[2].weight, weight)
    nn.init.zeros_(net[2].bias)
    return Teacher(net, Normalize((mean, mean, mean)), resolution)


def test_whatever_changes_the_answer_changes_the_digest() -> None:
    made = [_teacher(), _teacher(1.5), _teacher(resolution=9), _teacher(mean=0.4)]
    made.append(Teacher(nn.Sequential(*made[0].net, nn.ReLU()), Normalize((0.5, 0.5, 0.5)), 8))
    digests = {teacher_digest(one, "fp32") for one in made} | {teacher_digest(made[0], "bf16")}
    assert len(digests) == 6 and teacher_digest(_teacher(), "fp32") in digests


def test_one_other_pixel_is_another_batch(tmp_path: Path) -> None:
    cached = with_cache(_teacher(), tmp_path, 3, "fp32", "fp32")
    images = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    logits = cached(images)
    torch.testing.assert_close(logits, _teacher()(images))
    assert torch.equal(cached(images), logits) and (cached.num_evaluated, cached.num_cached) == (1, 1)
    other = images.clone()
    other[1, 7, 7, 2] ^= 1
    assert not torch.equal(cached(other), logits)
    cached(images.view(2, 4, 16, 3))  # the same bytes
    cached(images.flip(0))
    assert (cached.num_evaluated, cached.num_cached) == (4, 1)
    # Variants of one run share the file.
    assert torch.equal(with_cache(_teacher(), tmp_path, 3, "fp32", "fp32")(images), logits)


def test_caches_that_cannot_work_are_refused(
    tmp_path: Path,
    teacher: Path,
    open_coded: OpenCoded,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = _all_on(tmp_path / "run", teacher)
    recipe = replace(recipe, distill=DistillConfig(str(teacher), cache=tmp_path / "kept"))

    def opened() -> VariantRun:
        log = RunLog(recipe.folder, recipe, {})
        try:
            return VariantRun(VariantPlan("baseline", recipe), open_coded, open_coded("val"), CPU, log)
        finally:
            log.close()

    monkeypatch.setattr("fixres.training.teacher_cache.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    # 24 images, 2 epochs, 2 classes, 2 bytes: 192.
    with pytest.raises(InputError, match=r"needs 0\.0 GB \(24 images, 2 epochs, 2 classes\)"):
        opened()
    monkeypatch.undo()
    monkeypatch.setattr("fixres.pipelines.loaders.pillow.TorchLoader.shares_boxes", False)
    with pytest.raises(InputError, match="draws its own crops"):
        opened()


def test_the_network_of_a_tiny_teacher_can_be_digested() -> None:
    torch.manual_seed(0)
    net = create_model(TINY, 2)  # channels_last weights, integer buffers
    assert len(teacher_digest(Teacher(net, Normalize(), 32), "fp32")) == 64
